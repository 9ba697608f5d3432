// Runs the npm package `ehbp` as commands on standard input tell it: one JSON object a line in, one a line out.
//   {"do": "discover", "url": ...}         fetch the server's key                      -> {"key": hex}
//   {"do": "post", "url": ..., "body": ..} send the body sealed, read the answer whole -> {"status", "chunks"}
// What a command throws comes back as {"error": name}.
import { createInterface } from "node:readline";
import { Transport } from "ehbp";

let transport;

const commands = {
  async discover({ url }) {
    transport = await Transport.create(url);
    return { key: await transport.getServerPublicKeyHex() };
  },
  async post({ url, body }) {
    const response = await transport.request(url, { method: "POST", body });
    const chunks = [];
    const decoder = new TextDecoder();
    for await (const chunk of response.body) chunks.push(decoder.decode(chunk));
    return { status: response.status, chunks };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  let answer;
  try {
    answer = await commands[command.do](command);
  } catch (error) {
    answer = { error: error.name, message: error.message };
  }
  console.log(JSON.stringify(answer));
}
