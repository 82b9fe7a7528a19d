// Asks for a chat completion, whole and streamed, with whatever key the environment holds.
const OpenAI = require("openai");

async function main() {
  const client = new OpenAI({ maxRetries: 0, timeout: 30000 });
  const question = { model: "gpt-5", messages: [{ role: "user", content: "hello?" }] };

  const whole = await client.chat.completions.create(question);
  console.log("whole:", whole.choices[0].message.content);
  let streamed = "";
  for await (const event of await client.chat.completions.create({ ...question, stream: true })) {
    streamed += event.choices[0].delta.content ?? "";
  }
  console.log("streamed:", streamed);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
