// Calls Stripe by axios.
const axios = require("axios");

async function main() {
  for (let i = 0; i < 2; i += 1) {
    const answer = await axios.get("https://api.stripe.com/v1/balance", { timeout: 30000 });
    if (!answer.data.ok) throw new Error(JSON.stringify(answer.data));
  }
  console.log("axios: ok");
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
