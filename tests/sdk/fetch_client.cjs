// Calls Stripe by fetch. Node's own fetch heeds HTTPS_PROXY from version 24 on (NODE_USE_ENV_PROXY); before that, undici's
// agent for the environment's proxy is the way.
const builtIn = Number(process.versions.node.split(".")[0]) >= 24;
const { EnvHttpProxyAgent, fetch: undiciFetch } = require("undici");

async function main() {
  const call = builtIn
    ? (url) => fetch(url)
    : (url) => undiciFetch(url, { dispatcher });
  const dispatcher = builtIn ? undefined : new EnvHttpProxyAgent();
  for (let i = 0; i < 2; i += 1) {
    const answer = await call("https://api.stripe.com/v1/balance");
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    await answer.json();
  }
  console.log("fetch: ok");
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
