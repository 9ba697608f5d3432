// The pane that shows what the wire carried, one exchange below the other.
import { WireExchange } from "./wire_exchange.js";

const KEPT_EXCHANGES = 12;

export class Wire {
  #pane;
  #exchanges = [];
  #phases = new Map();
  // When the list of keys was requested: it lacks the keys that were made later.
  #askedAt = -Infinity;

  constructor(pane) {
    this.#pane = pane;
  }

  // Shows the plaintext in place of the ciphertext: what the wire would have carried if nothing were sealed.
  set showsPlaintext(shows) {
    this.#pane.classList.toggle("unsealed", shows);
    // The person's own words are at the start of an exchange.
    if (shows) this.#exchanges.at(-1)?.scrollToStart();
  }

  // Opens an exchange whose request has this body (a string).
  open(body) {
    this.#pane.querySelector(".empty")?.remove();
    const exchange = new WireExchange(this.#pane, body, (publicKey, sealedAt) => this.#phaseOf(publicKey, sealedAt));
    this.#exchanges.push(exchange);
    if (this.#exchanges.length > KEPT_EXCHANGES) this.#exchanges.shift().remove();
    return exchange;
  }

  // Takes an answer of GET /keys and the time of the request, and shows the state of each key that was used.
  update(lives, askedAt) {
    this.#phases = new Map(lives.keys.map((life) => [life.public_key, phaseIn(life)]));
    this.#askedAt = askedAt;
    for (const exchange of this.#exchanges) exchange.showPhases();
  }

  // Shows the keys' state as unknown until the next update.
  pause() {
    this.update({ keys: [] }, -Infinity);
  }

  #phaseOf(publicKey, sealedAt) {
    // The server lists every key that exists, so a missing one is erased: it is older, or of an earlier run.
    return this.#phases.get(publicKey) ?? (sealedAt < this.#askedAt ? "erased" : "unknown");
  }
}

function phaseIn(life) {
  if (life.erased_s_ago !== null) return "erased";
  return life.replaced_s_ago !== null ? "overlap" : "current";
}
