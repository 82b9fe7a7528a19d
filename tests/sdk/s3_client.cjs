// An agent that uploads with the AWS SDK for JavaScript, version 3, on the placeholder keys of its environment.
const { createHash } = require("node:crypto");
const { Readable } = require("node:stream");
const { GetObjectCommand, PutObjectCommand, S3Client } = require("@aws-sdk/client-s3");
const { HttpsProxyAgent } = require("https-proxy-agent");

// The SDK heeds no HTTPS_PROXY; its documentation names this agent.
const client = new S3Client({
  region: "us-east-1",
  requestHandler: { httpsAgent: new HttpsProxyAgent(process.env.HTTPS_PROXY) },
});

async function main() {
  const body = Buffer.alloc(300_000, "javascript ");
  await client.send(new PutObjectCommand({ Bucket: "data", Key: "whole (1)'s*.bin", Body: body }));
  const stream = Readable.from(function* () {
    for (let at = 0; at < body.length; at += 70_000) yield body.subarray(at, at + 70_000);
  }());
  await client.send(
    new PutObjectCommand({ Bucket: "data", Key: "streamed", Body: stream, ContentLength: body.length }),
  );
  await client.send(new GetObjectCommand({ Bucket: "data", Key: "streamed" }));
  console.log("sha256:", createHash("sha256").update(body).digest("hex"));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
