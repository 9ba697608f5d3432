// The OpenAI SDK over npm ehbp, which seals in this process: node over_ehbp.mjs
import { createTransport, KeyConfigMismatchError } from "ehbp";
import OpenAI from "openai";

const server = process.env.SERVER ?? "http://127.0.0.1:8000";
let transport = await createTransport(server);

async function sealedFetch(url, init) {
  try {
    return await transport.request(url, init);
  } catch (error) {
    if (!(error instanceof KeyConfigMismatchError)) throw error;
    transport = await createTransport(server); // the key that it had is over
    return transport.request(url, init);
  }
}

const openai = new OpenAI({ baseURL: `${server}/v1`, apiKey: "unused", fetch: sealedFetch });
const question = [{ role: "user", content: "What does the river keep?" }];
const stream = await openai.chat.completions.create({ model: "toy-rambler", messages: question, stream: true });
for await (const event of stream) process.stdout.write(event.choices[0].delta.content ?? "");
