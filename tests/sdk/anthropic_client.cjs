// Asks for a message, whole and streamed, with whatever key the environment holds.
const Anthropic = require("@anthropic-ai/sdk");

async function main() {
  const client = new Anthropic({ maxRetries: 0, timeout: 30000 });
  const question = { model: "claude-test", max_tokens: 64, messages: [{ role: "user", content: "hello?" }] };

  const whole = await client.messages.create(question);
  console.log("whole:", whole.content[0].text);
  let streamed = "";
  await client.messages
    .stream(question)
    .on("text", (text) => {
      streamed += text;
    })
    .finalMessage();
  console.log("streamed:", streamed);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
