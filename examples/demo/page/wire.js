// The pane that shows what the wire carried: each exchange's headers and frames, as they travel.
import { concat, toHex, utf8 } from "./js/bytes.js";
import { child, followEnd, shortened } from "./dom.js";
import { duration } from "./durations.js";
import { frame } from "./js/frames.js";

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
  // What belongs to one key: a message that is refused is sealed to another.
  #attempt;
  #list = null;
  #carried = [];
  #seals = [];
  #rows = new Map();

  constructor(pane, phaseOf) {
    this.#pane = pane;
    this.#phaseOf = phaseOf;
    followEnd(pane, () => {
      this.#element = child(pane, "article", "exchange");
      this.#attempt = child(this.#element, "div", "attempt");
    });
  }

  // Bytes sent and received, frames received: what the reader is told of an answer.
  sentBytes = 0;
  receivedBytes = 0;
  receivedFrames = 0;

  take(event) {
    followEnd(this.#pane, () => {
      if (event.kind === "key") {
        this.#line("fetched", `GET /.well-known/hpke-keys`, `${event.publicKey.slice(0, 16)}… for ${duration(event.maxAge)}`);
      } else if (event.kind === "request") {
        this.#seal(event);
        this.#line("sent", `POST ${event.path}`);
        this.#line("sent header", "Ehbp-Encapsulated-Key", event.encapsulatedKey);
      } else if (event.kind === "response") {
        this.#line("received", String(event.status));
        this.#line("received header", "Ehbp-Response-Nonce", event.nonce);
      } else if (event.kind === "mismatch") {
        this.#line("received refused", `${event.status}`, "that key is erased: fetching the new one, sending once more");
        this.#attempt = child(this.#element, "div", "attempt");
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

  // Looks for every longer word of a message and its answer in all bodies that the wire carried, and tells the result.
  search(message, answer) {
    const [mine, theirs] = [longerWords(message), longerWords(answer)];
    if (mine.length + theirs.length === 0) {
      this.end("The bodies were not searched: no word of yours or of the answer's is long enough to tell it from chance.");
      return;
    }
    const carried = latin1(concat(...this.#carried)).toLowerCase();
    const found = new Set([...mine, ...theirs].filter((word) => carried.includes(latin1(utf8(word)).toLowerCase())));
    const outcome = found.size === 0 ? "none found" : `found ${[...found].join(", ")}`;
    this.end(
      `Searched ${carried.length.toLocaleString("en")} bytes of bodies for longer words, ${mine.length} of yours and ${theirs.length} of the answer's: ${outcome}.`,
      found.size > 0,
    );
  }

  // Tells how the exchange ended.
  end(text, bad = false) {
    followEnd(this.#pane, () => child(this.#element, "p", `closing${bad ? " bad" : ""}`, text));
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
    const head = child(this.#attempt, "p", "sealed-to");
    child(child(head, "span", "", "sealed to "), "code", "", shortened(publicKey)).title = publicKey;
    this.#seals.push({ publicKey, at: performance.now(), chip: child(head, "span", "chip"), phase: null });
    this.showPhases();
  }

  #line(kind, what, value = "") {
    const line = child(this.#attempt, "p", `line ${kind}`);
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
    this.#list ??= child(this.#attempt, "ol", `frames ${sent ? "sent" : "received"}`);
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

function longerWords(text) {
  return [...new Set(text.match(/[\p{L}\p{N}]+/gu) ?? [])].filter((word) => utf8(word).length >= SHORTEST_WORD);
}

function phaseIn(life) {
  if (life.erased_s_ago !== null) return "erased";
  return life.replaced_s_ago !== null ? "overlap" : "current";
}

// One character a byte, so that strings can be searched for bytes.
function latin1(bytes) {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}
