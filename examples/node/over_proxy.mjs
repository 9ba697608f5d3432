// The OpenAI SDK over `server-keys seal`, which seals what leaves this machine:
//   server-keys seal --to http://127.0.0.1:8000 --listen 127.0.0.1:8011
//   node over_proxy.mjs
import OpenAI from "openai";

const openai = new OpenAI({ baseURL: process.env.BASE_URL ?? "http://127.0.0.1:8011/v1", apiKey: "unused" });
const question = [{ role: "user", content: "What does the river keep?" }];
const stream = await openai.chat.completions.create({ model: "toy-rambler", messages: question, stream: true });
for await (const event of stream) process.stdout.write(event.choices[0].delta.content ?? "");
