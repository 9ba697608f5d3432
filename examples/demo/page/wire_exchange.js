// One request and its response in the wire's pane: the lines and frames that travelled, and the plaintext in them.
import { concat, toHex, utf8 } from "./js/bytes.js";
import { frame } from "./js/frames.js";
import { TAG_BYTES } from "./js/numbered_cipher.js";
import { child, followEnd, shortened } from "./dom.js";
import { duration } from "./durations.js";
import { longerWords, wordsFoundIn } from "./search.js";

const SHOWN_BYTES = 64;
// Of a header's field. The sealed head of a chat is shorter, an encapsulated key of X-Wing is not.
const SHOWN_CHARACTERS = 96;
const SHOWN_OF_IDENTITY = "ed25519:".length + 8;

export class WireExchange {
  #pane;
  #phaseOf;
  #body;
  #element;
  // The element for one try. A message that the server refuses is sealed again to another key, in a new try.
  #attempt;
  // What of the body has not been sent in this try, and whether its frames have an end.
  #unsent;
  #version;
  // The lines that stay in view while the frames scroll.
  #head = null;
  #list = null;
  #carried = [];
  #seals = [];
  #rows = new Map();

  constructor(pane, body, phaseOf) {
    this.#pane = pane;
    this.#body = body;
    this.#phaseOf = phaseOf;
    followEnd(pane, () => {
      this.#element = child(pane, "article", "exchange");
      this.#startAttempt();
    });
  }

  sentBytes = 0;
  receivedBytes = 0;
  receivedFrames = 0;

  // Called with a frame's number when the pointer enters (true) or leaves (false) a received frame.
  onPoint = () => {};

  // Takes an event of the client: something travels.
  take(event) {
    followEnd(this.#pane, () => {
      if (event.kind === "key") {
        const signed = event.identity ? `, signed by ${event.identity.slice(0, SHOWN_OF_IDENTITY)}…` : "";
        const key = `${event.publicKey.slice(0, 16)}… for ${duration(event.maxAge)}`;
        this.#head.before(this.#line("fetched", `GET ${event.path}`, key + signed));
      } else if (event.kind === "request") {
        this.#seal(event);
        this.#line("sent", `${event.method} ${event.path}`);
        this.#headerLine("sent", "Ehbp-Encapsulated-Key", event.header);
      } else if (event.kind === "response") {
        this.#line("received", String(event.status));
        this.#headerLine("received", "Ehbp-Response-Nonce", event.header);
      } else if (event.kind === "mismatch") {
        this.#line("received refused", `${event.status}`, "that key is erased: fetching the new one, sending once more");
        this.#attempt.classList.add("in-vain");
        this.#startAttempt();
      } else {
        this.#frame(event);
      }
    });
  }

  // Takes the plaintext of a received frame.
  reveal(index, plaintext) {
    followEnd(this.#pane, () => showPlaintext(this.#rows.get(index), new TextDecoder().decode(plaintext)));
  }

  showPhases() {
    for (const seal of this.#seals) {
      // An erased key stays erased, whether or not the server answers.
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

  // Searches all bodies that travelled for the longer words of a message and its answer, and tells the result.
  search(message, answer) {
    const [mine, theirs] = [longerWords(message), longerWords(answer)];
    if (mine.length + theirs.length === 0) {
      this.end("The bodies were not searched: no word of yours or of the answer's is long enough to tell it from chance.");
      return;
    }
    const carried = concat(...this.#carried);
    const found = wordsFoundIn(carried, [...mine, ...theirs]);
    const outcome = found.length === 0 ? "none found" : `found ${found.join(", ")}`;
    this.end(
      `Searched ${carried.length.toLocaleString("en")} bytes of bodies for longer words, ${mine.length} of yours and ${theirs.length} of the answer's: ${outcome}.`,
      found.length > 0,
    );
  }

  // Tells how the exchange ended.
  end(text, bad = false) {
    followEnd(this.#pane, () => child(this.#element, "p", `closing${bad ? " bad" : ""}`, text));
  }

  // Lights up the frame that brought a piece of the answer, and scrolls it into view.
  highlight(index, on) {
    const row = this.#rows.get(index);
    if (!row) return;
    row.classList.toggle("lit", on);
    if (!on) return;
    const { top, bottom } = row.getBoundingClientRect();
    const visibleTop = this.#pane.getBoundingClientRect().top + this.#head.offsetHeight;
    const visibleBottom = this.#pane.getBoundingClientRect().bottom;
    if (top < visibleTop || bottom > visibleBottom) this.#pane.scrollTop += top - (visibleTop + visibleBottom) / 2;
  }

  scrollToStart() {
    this.#pane.scrollTop += this.#element.getBoundingClientRect().top - this.#pane.getBoundingClientRect().top;
  }

  remove() {
    this.#element.remove();
  }

  #startAttempt() {
    this.#attempt = child(this.#element, "div", "attempt");
    this.#head = child(this.#attempt, "div", "head");
    this.#list = null;
    this.#unsent = utf8(this.#body);
  }

  // signedBy: the identity that signed the key, as the client has checked; null if it checks none.
  #seal({ publicKey, version, kem, signedBy }) {
    this.#version = version;
    const line = child(this.#head, "p", "sealed-to");
    child(child(line, "span", "", "sealed to "), "code", "", shortened(publicKey)).title = publicKey;
    this.#seals.push({ publicKey, at: performance.now(), chip: child(line, "span", "chip"), phase: null });
    if (signedBy) {
      const verified = child(line, "span", "verified", "✓ verified");
      verified.title = `This browser has checked that ${signedBy} signed the key. It has that identity from the same server; other clients know it from elsewhere.`;
    }
    const spoken = child(line, "span", "spoken", version === "v1" ? `version 1, ${kem}` : `plain EHBP, ${kem}`);
    // Each pair of the timeline has a key of either kind. Its X25519 key names it.
    if (version === "v1") spoken.title = `sealed to the ${kem} key that the server publishes beside ${publicKey}`;
    this.showPhases();
  }

  #line(kind, what, value = "") {
    const line = child(this.#head, "p", `line ${kind}`);
    child(line, "span", "what", what);
    if (value) child(line, "code", "value", value);
    this.#list = null;
    return line;
  }

  #headerLine(kind, name, value) {
    this.#line(`${kind} header`, name, shownHeader(value)).lastChild.title = value;
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
    if (this.#version === "v1" && ciphertext.length === TAG_BYTES) {
      row.classList.add("end");
      row.querySelector(".ciphertext").textContent = "end";
      return;
    }
    if (sent) {
      const length = ciphertext.length - TAG_BYTES;
      showPlaintext(row, new TextDecoder().decode(this.#unsent.subarray(0, length)));
      this.#unsent = this.#unsent.subarray(length);
      return;
    }
    this.#rows.set(index, row);
    row.addEventListener("pointerenter", () => this.onPoint(index, true));
    row.addEventListener("pointerleave", () => this.onPoint(index, false));
  }
}

// A header's value, in which each long field is shortened. No field has brackets of its own.
function shownHeader(value) {
  const shown = (field) => `${field.slice(0, SHOWN_CHARACTERS / 4)}[${(field.length - SHOWN_CHARACTERS / 4).toLocaleString("en")} more]`;
  return value.split(".").map((field) => (field.length > SHOWN_CHARACTERS ? shown(field) : field)).join(".");
}

// Adds a plaintext to a frame's row: its last message, with the words emphasised. The title has the whole text.
function showPlaintext(row, text) {
  const plaintext = child(row, "code", "plaintext");
  plaintext.title = text;
  const words = [...text.matchAll(/"content":"((?:[^"\\]|\\.)*)"/g)].at(-1);
  if (!words) {
    plaintext.textContent = text.trim();
    return;
  }
  const start = words.index + words[0].length - 1 - words[1].length;
  const shownFrom = text.lastIndexOf("{", start);
  plaintext.append(`${shownFrom > 0 ? "…" : ""}${text.slice(shownFrom, start)}`);
  child(plaintext, "b", "", words[1]);
  plaintext.append(text.slice(start + words[1].length).trimEnd());
}
