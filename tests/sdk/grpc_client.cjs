// gRPC in its four kinds by `@grpc/grpc-js`, which finds its proxy and its trust in the environment.
const assert = require("node:assert");
const grpc = require("@grpc/grpc-js");

const client = new grpc.Client("api.stripe.com:443", grpc.credentials.createSsl());
const same = (bytes) => bytes;
const path = (name) => `/claviger.test.Echo/${name}`;
const options = () => ({ deadline: Date.now() + 20000 });
const text = (messages) => messages.map((message) => message.toString());

const unary = (name, message) =>
  new Promise((resolve, reject) => {
    let trailers;
    const done = (error, answer) => (error ? reject(error) : resolve([answer, trailers]));
    const call = client.makeUnaryRequest(path(name), same, same, Buffer.from(message), new grpc.Metadata(), options(), done);
    call.on("status", (status) => {
      trailers = status.metadata;
      if (status.code === 0) console.log("trailer:", trailers.get("x-echo")[0]);
    });
  });

const collected = (call) =>
  new Promise((resolve, reject) => {
    const messages = [];
    call.on("data", (message) => messages.push(message));
    call.on("error", reject);
    call.on("end", () => resolve(messages));
  });

(async () => {
  assert.equal((await unary("Unary", "hello"))[0].toString(), "hello");
  console.log("masked:", (await unary("Key", ""))[0].toString());
  const repeated = client.makeServerStreamRequest(path("Repeat"), same, same, Buffer.from("again"), options());
  assert.deepEqual(text(await collected(repeated)), ["again", "again", "again"]);

  const count = await new Promise((resolve, reject) => {
    const call = client.makeClientStreamRequest(path("Count"), same, same, new grpc.Metadata(), options(), (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
    for (const message of ["a", "b", "c"]) call.write(Buffer.from(message));
    call.end();
  });
  assert.equal(count.toString(), "3 messages");

  const stream = client.makeBidiStreamRequest(path("Stream"), same, same, options());
  let number = 0;
  stream.on("data", (message) => {
    assert.equal(message.toString(), String(number));
    number += 1;
    if (number < 20) stream.write(Buffer.from(String(number)));
    else stream.end();
  });
  stream.write(Buffer.from("0"));
  await new Promise((resolve, reject) => stream.on("end", resolve).on("error", reject));
  assert.equal(number, 20);

  await assert.rejects(unary("Fail", ""), { code: grpc.status.NOT_FOUND, details: "as asked" });
  const endless = client.makeBidiStreamRequest(path("Stream"), same, same, { deadline: Date.now() + 1000 });
  await assert.rejects(collected(endless), { code: grpc.status.DEADLINE_EXCEEDED });
  const cancelled = client.makeBidiStreamRequest(path("Stream"), same, same, options());
  cancelled.write(Buffer.from("once"));
  await new Promise((resolve) => cancelled.once("data", resolve));
  cancelled.on("error", () => {});
  cancelled.cancel();
  console.log("grpc: ok");
  client.close();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
