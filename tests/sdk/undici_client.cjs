// Calls Stripe by the undici package, on its global dispatcher.
const { fetch, request } = require("undici");

async function main() {
  const fetched = await fetch("https://api.stripe.com/v1/balance");
  if (!fetched.ok) throw new Error(`${fetched.status} ${await fetched.text()}`);
  const { statusCode, body } = await request("https://api.stripe.com/v1/balance");
  if (statusCode !== 200 || !(await body.json()).ok) throw new Error(String(statusCode));
  console.log("undici: ok");
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
