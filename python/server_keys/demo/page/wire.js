// The pane that shows what the wire carried: each exchange's headers and frames, as they travel.
import { concat, toHex, utf8 } from "./bytes.js";
import { child, followEnd } from "./dom.js";
import { frame } from "./frames.js";

const TAG_BYTES = 16;
const SHOWN_BYTES = 64;
// Words of four letters turn up in ciphertext by chance: in one answer of some thousands.
const SHORTEST_WORD = 5;
const KEPT_EXCHANGES = 12;

export class Wire {
  #pane;
  #exchanges = [];
  #phases = new Map();
  // When the list of the keys that exist was asked for: it does not tell of keys that came later.
  #askedAt = -Infinity;

  constructor(pane) {
    this.#pane = pane;
  }

  // Opens an exchange; what the client tells of the wire goes into the one it returns.
  open() {
    this.#pane.querySelector(".empty")?.remove();
    const exchange = new Exchange(this.#pane, (publicKey, sealedAt) => this.#phaseOf(publicKey, sealedAt));
    this.#exchanges.push(exchange);
    if (this.#exchanges.length > KEPT_EXCHANGES) this.#exchanges.shift().remove();
    return exchange;
  }

  // Takes an answer of GET /keys and when it was asked for: what has become of the keys that exchanges were sealed to.
  update(lives, askedAt) {
    this.#phases = new Map(lives.keys.map((life) => [life.public_key, phaseIn(life)]));
    this.#askedAt = askedAt;
    for (const exchange of this.#exchanges) exchange.showPhases();
  }

  // Until the next update: nobody knows what the server's keys do.
  pause() {
    this.update({ keys: [] }, -Infinity);
  }

  #phaseOf(publicKey, sealedAt) {
    // The server lists all keys that exist: one that it does not know any more is older, or went with an earlier run.
    return this.#phases.get(publicKey) ?? (sealedAt < this.#askedAt ? "erased" : "unknown");
  }
}

class Exchange {
  #pane;
  #phaseOf;
  #element;
  #list = null;
  #carried = [];
  #seals = [];
  #rows = new Map();

  constructor(pane, phaseOf) {
    this.#pane = pane;
    this.#phaseOf = phaseOf;
    followEnd(pane, () => {
      this.#element = child(pane, "article", "exchange");
    });
  }

  // Bytes sent and received, frames received: what the reader is told of an answer.
  sentBytes = 0;
  receivedBytes = 0;
  receivedFrames = 0;

  take(event) {
    followEnd(this.#pane, () => {
      if (event.kind === "key") {
        this.#line("fetched", `GET /.well-known/hpke-keys`, `${event.publicKey.slice(0, 16)}… for ${event.maxAge} s`);
      } else if (event.kind === "request") {
        this.#seal(event);
        this.#line("sent", `POST ${event.path}`);
        this.#line("sent header", "Ehbp-Encapsulated-Key", event.encapsulatedKey);
      } else if (event.kind === "response") {
        this.#line("received", String(event.status));
        this.#line("received header", "Ehbp-Response-Nonce", event.nonce);
      } else if (event.kind === "mismatch") {
        this.#line("received refused", `${event.status}`, "that key is erased: fetching the new one, sending once more");
        this.#list = null;
      } else {
        this.#frame(event);
      }
    });
  }

  showPhases() {
    for (const seal of this.#seals) {
      // What is erased stays so, whether or not the server can be asked.
      if (seal.phase === "erased") continue;
      seal.phase = this.#phaseOf(seal.publicKey, seal.at);
      seal.chip.className = `chip ${seal.phase}`;
      seal.chip.textContent = {
        current: "key current",
        overlap: "key still accepted",
        erased: "key erased: this recording stays closed",
        unknown: "key's state unknown",
      }[seal.phase];
    }
  }

  // Looks for every longer word of `texts` in all that the wire carried, and tells the result.
  search(texts) {
    const words = [...new Set(texts.join(" ").match(/[\p{L}\p{N}]+/gu) ?? [])].filter((word) => utf8(word).length >= SHORTEST_WORD);
    const carried = latin1(concat(...this.#carried)).toLowerCase();
    const found = words.filter((word) => carried.includes(latin1(utf8(word.toLowerCase()))));
    const outcome = found.length === 0 ? "none of them is in it" : `found in it: ${found.join(", ")}`;
    followEnd(this.#pane, () => {
      const text = `Searched these ${carried.length.toLocaleString("en")} bytes for ${words.length} longer words of yours and of the answer: ${outcome}.`;
      child(this.#element, "p", `searched${found.length ? " bad" : ""}`, text);
    });
  }

  fail(message) {
    followEnd(this.#pane, () => child(this.#element, "p", "searched bad", message));
  }

  // Marks the frame that brought a piece of the answer, and brings it into view.
  highlight(index, on) {
    const row = this.#rows.get(index);
    if (!row) return;
    row.classList.toggle("lit", on);
    if (!on) return;
    const { top, bottom } = row.getBoundingClientRect();
    const pane = this.#pane.getBoundingClientRect();
    if (top < pane.top || bottom > pane.bottom) this.#pane.scrollTop += top - (pane.top + pane.bottom) / 2;
  }

  // Told when the pointer is on a received frame, with its number, and when it leaves it.
  onPoint = () => {};

  remove() {
    this.#element.remove();
  }

  #seal({ publicKey }) {
    const head = child(this.#element, "p", "sealed-to");
    head.append("sealed to ");
    child(head, "code", "", `${publicKey.slice(0, 8)}…`).title = publicKey;
    this.#seals.push({ publicKey, at: performance.now(), chip: child(head, "span", "chip"), phase: null });
    this.showPhases();
  }

  #line(kind, what, value = "") {
    const line = child(this.#element, "p", `line ${kind}`);
    child(line, "span", "what", what);
    if (value) child(line, "code", "value", value);
    this.#list = null;
  }

  #frame({ sent, index, ciphertext }) {
    const bytes = frame(ciphertext);
    this.#carried.push(bytes);
    if (sent) {
      this.sentBytes += bytes.length;
    } else {
      this.receivedBytes += bytes.length;
      this.receivedFrames += 1;
    }
    this.#list ??= child(this.#element, "ol", `frames ${sent ? "sent" : "received"}`);
    const row = child(this.#list, "li", "frame");
    child(row, "span", "number", String(index));
    child(row, "span", "size", `${bytes.length} B`);
    child(row, "code", "length", toHex(bytes.subarray(0, 4)));
    child(row, "code", "ciphertext", toHex(ciphertext.subarray(0, -TAG_BYTES).subarray(0, SHOWN_BYTES)));
    child(row, "code", "tag", toHex(ciphertext.subarray(-TAG_BYTES)));
    if (sent) return;
    this.#rows.set(index, row);
    row.addEventListener("pointerenter", () => this.onPoint(index, true));
    row.addEventListener("pointerleave", () => this.onPoint(index, false));
  }
}

function phaseIn(life) {
  if (life.erased_s_ago !== null) return "erased";
  return life.replaced_s_ago !== null ? "overlap" : "current";
}

// One character a byte, so that strings can be searched for bytes.
function latin1(bytes) {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}
