// Calls Stripe by Node's own fetch.
async function main() {
  for (let i = 0; i < 2; i += 1) {
    const answer = await fetch("https://api.stripe.com/v1/balance");
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    await answer.json();
  }
  console.log("fetch: ok");
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
