// An agent that reads a Stripe balance without holding a key. Node 24 or later.
//
//   claviger set put stripe/test/me STRIPE_SECRET_KEY=-
//   claviger agent create me
//   claviger grant create --agent me --set stripe/test/me --actions proxy_use,mint_workflow_lease
//   claviger run --set stripe/test/me -- node examples/node_fetch.mjs
//
// `run` sets NODE_USE_ENV_PROXY and NODE_EXTRA_CA_CERTS, so `fetch` goes through the injector; the real key is put in there.

const response = await fetch("https://api.stripe.com/v1/balance", {
  headers: { authorization: `Bearer ${process.env.STRIPE_API_KEY ?? "placeholder"}` },
});
const body = await response.json();

// A refusal of Claviger's carries Proxy-Status and says what to do; an error of Stripe's does not.
if (response.headers.has("proxy-status")) {
  console.error(`refused by Claviger: ${body.error}: ${body.detail}`);
  process.exit(1);
}
console.log(response.status, JSON.stringify(body, null, 2));
