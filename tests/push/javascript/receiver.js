// A service that takes only what the library of Standard Webhooks verifies: node receiver.js PORT SECRET

const http = require("node:http");
const {Webhook} = require("standardwebhooks");

const [port, secret] = process.argv.slice(2);
const webhook = new Webhook(secret);

function answer(request, body) {
  if (request.method === "OPTIONS") return [200, {"WebHook-Allowed-Origin": "*"}, ""];
  try {
    return [200, {}, JSON.stringify(webhook.verify(body, request.headers))];
  } catch (error) {
    return [401, {}, `${error.name}: ${error.message}`];
  }
}

http
  .createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    const [status, headers, said] = answer(request, Buffer.concat(parts).toString());
    response.writeHead(status, headers).end(said);
  })
  .listen(Number(port), "127.0.0.1", () => console.log("listening"));
