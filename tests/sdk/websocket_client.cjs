// A WebSocket by `ws`, with the agent that its users give it for a proxy.
const { HttpsProxyAgent } = require("https-proxy-agent");
const WebSocket = require("ws");

const agent = new HttpsProxyAgent(process.env.HTTPS_PROXY);
const socket = new WebSocket("wss://api.stripe.com/websocket/node", { agent });
const answers = [];
socket.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
socket.on("open", () => socket.send("hello"));
socket.on("message", (data) => {
  answers.push(data.toString());
  const next = ["x".repeat(100000), "key", "key in pieces"][answers.length - 1];
  if (next) {
    socket.send(next);
  } else {
    socket.close();
  }
});
socket.on("close", () => {
  if (answers[0] !== "hello" || answers[1] !== "x".repeat(100000)) {
    throw new Error("the echo differs");
  }
  console.log("masked:", answers[2]);
  console.log("pieces:", answers[3]);
  console.log("websocket: ok");
});
