// Makes a charge with whatever key the environment holds. This SDK's own agent heeds no proxy, so it is told to use fetch.
const Stripe = require("stripe");

async function main() {
  const httpClient = Stripe.createFetchHttpClient();
  const stripe = new Stripe(process.env.STRIPE_API_KEY, { httpClient, maxNetworkRetries: 0, timeout: 30000 });
  const charge = await stripe.charges.create({ amount: 4200, currency: "usd", source: "tok_visa" });
  console.log("charge:", charge.id, charge.amount);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
