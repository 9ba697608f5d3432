// The chat: sends a message, reads the answer, and tells both panes.
import { EhbpClient } from "./js/ehbp.js";
import { EventParser } from "./server_sent_events.js";

const PATH = "/v1/chat/completions";
const MODEL = "toy-rambler";

export class Chat {
  #conversation;
  #wire;
  #onSealed;
  #client;
  #messages = [];
  #answer = null;
  #exchange = null;
  // The key that the current message was last sealed to, and whether the server has refused that key.
  #sealedTo = null;
  #refused = false;
  // Who signed each key, by the key's public half.
  #signers = new Map();
  // What answered, where several processes do.
  #answeredBy = null;

  // onSealed is called with what the client tells about a message that it has sealed: key, version, KEM.
  // identity: whose signature the server's keys must have.
  constructor(conversation, wire, identity, onSealed) {
    this.#conversation = conversation;
    this.#wire = wire;
    this.#onSealed = onSealed;
    this.#client = new EhbpClient({ identity, onWire: (event) => this.#tell(event) });
  }

  set holdsOnToKey(hold) {
    this.#client.ignoreMaxAge = hold;
  }

  async say(text, signal) {
    this.#conversation.ask(text);
    const answer = this.#conversation.answer();
    this.#messages.push({ role: "user", content: text });
    const body = this.#body();
    const exchange = this.#wire.open(body);
    [this.#answer, this.#exchange, this.#refused] = [answer, exchange, false];
    answer.onPoint = (index, on) => exchange.highlight(index, on);
    exchange.onPoint = (index, on) => answer.highlight(index, on);
    try {
      await this.#complete(body, answer, signal);
      this.#messages.push({ role: "assistant", content: answer.text });
      const { sentBytes, receivedBytes, receivedFrames } = exchange;
      const by = this.#answeredBy === null ? "" : `, answered by ${this.#answeredBy}`;
      answer.end(`${sentBytes.toLocaleString("en")} bytes of body out, ${receivedBytes.toLocaleString("en")} back in ${receivedFrames} sealed frames${by}`);
      exchange.search(text, answer.text);
    } catch (error) {
      // A question without an answer does not become part of the conversation.
      this.#messages.pop();
      const stopped = error.name === "AbortError";
      answer.end(stopped ? "Stopped." : error.message, !stopped);
      exchange.end(stopped ? "Stopped here: nothing more was read." : error.message, !stopped);
    }
  }

  #body() {
    const turn = this.#messages.filter(({ role }) => role === "user").length;
    return JSON.stringify({ model: MODEL, messages: this.#messages, stream: true, seed: turn });
  }

  async #complete(body, answer, signal) {
    const response = await this.#client.post(PATH, body, { signal });
    if (response.status !== 200) throw new Error(await refusalOf(response));
    const parser = new EventParser();
    let complete = false;
    for await (const { index, plaintext } of response.pieces) {
      this.#exchange.reveal(index, plaintext);
      for (const data of parser.feed(plaintext)) {
        // In plain EHBP only [DONE] proves that the answer is complete: somebody may cut the stream between two frames.
        if (data === "[DONE]") complete = true;
        else {
          const chunk = JSON.parse(data);
          this.#answeredBy = chunk.system_fingerprint ?? null;
          answer.add(chunk.choices[0]?.delta.content ?? "", index);
        }
      }
    }
    if (!complete) throw new Error("The answer was cut off: the stream ended before it was complete.");
  }

  #tell(event) {
    if (event.kind === "key") this.#signers.set(event.publicKey, event.identity);
    this.#exchange.take(event.kind === "request" ? { ...event, signedBy: this.#signers.get(event.publicKey) } : event);
    if (event.kind === "mismatch") this.#refused = true;
    if (event.kind !== "request") return;
    if (this.#refused) this.#answer.tellRefusal(this.#sealedTo, event.publicKey);
    this.#sealedTo = event.publicKey;
    this.#onSealed(event);
  }
}

// Returns the message of a sealed error. It comes from the app itself.
async function refusalOf(response) {
  const decoder = new TextDecoder();
  let text = "";
  for await (const { plaintext } of response.pieces) text += decoder.decode(plaintext, { stream: true });
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `The server answered ${response.status}: ${text}`;
  }
}
