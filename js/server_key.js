// The public key that a server publishes: fetched when it is needed, and kept for as long as the server allows.
import { toHex } from "./bytes.js";
import { received, request } from "./requests.js";

const MEDIA_TYPE = "application/ohttp-keys";
const CONFIG_START = "000020"; // key id 0, KEM X25519
const CONFIG_SUITE = "000400010002"; // one suite: HKDF-SHA256, AES-256-GCM
// The server's keys live for minutes. A longer lifetime is a mistake.
const LONGEST_LIFETIME_S = 3600;
const LONGEST_FETCH_MS = 10_000;

export class ServerKey {
  #url;
  #onFetched;
  #publicKey = null;
  #goodUntil = 0;
  #fetching = null;

  // For demonstrations only: keeps a key for longer than the server allows, so that the server refuses it.
  ignoreMaxAge = false;

  // onFetched is called with each key that was fetched, and with the seconds for which it may be used.
  constructor(url, onFetched = () => {}) {
    this.#url = url;
    this.#onFetched = onFetched;
  }

  // Resolves to the server's current public key (32 bytes).
  async current(signal) {
    if (this.#publicKey && (this.ignoreMaxAge || performance.now() < this.#goodUntil)) return this.#publicKey;
    // All waiting callers share one fetch, so no single caller's signal may end it.
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = null;
    });
    return orAborted(this.#fetching, signal);
  }

  // Forgets a key that the server may no longer accept. A newer key stays.
  discard(publicKey) {
    if (this.#publicKey === publicKey) this.#publicKey = null;
  }

  async #fetch() {
    const askedAt = performance.now();
    const response = await request(this.#url, { cache: "no-store", signal: AbortSignal.timeout(LONGEST_FETCH_MS) });
    if (!response.ok) throw new Error(`GET ${this.#url} was answered ${response.status}`);
    const mediaType = (response.headers.get("Content-Type") ?? "").split(";")[0].trim().toLowerCase();
    if (mediaType !== MEDIA_TYPE) throw new Error(`GET ${this.#url} was answered with ${mediaType || "no media type"}, not ${MEDIA_TYPE}`);
    const publicKey = publicKeyOfConfig(new Uint8Array(await received(response.arrayBuffer())));
    const lifetime = lifetimeOf(response.headers);
    this.#onFetched(publicKey, lifetime);
    this.#goodUntil = askedAt + lifetime * 1000;
    this.#publicKey = publicKey;
    return publicKey;
  }
}

// Returns the key (32 bytes) of a key configuration (RFC 9458, section 3).
export function publicKeyOfConfig(config) {
  const hex = toHex(config);
  if (!hex.startsWith(CONFIG_START) || hex.slice(70, 82) !== CONFIG_SUITE) {
    throw new Error(`not a key configuration of X25519, HKDF-SHA256 and AES-256-GCM: ${hex.slice(0, 100)}`);
  }
  return config.slice(3, 35);
}

// Returns the seconds for which a response may be reused (RFC 9111): 0 where the server does not say.
export function lifetimeOf(headers) {
  const cacheControl = headers.get("Cache-Control") ?? "";
  if (/(^|[\s,])no-(store|cache)\b/i.test(cacheControl)) return 0;
  const maxAge = Number(/(?:^|[\s,])max-age="?(\d+)/i.exec(cacheControl)?.[1] ?? 0);
  const age = Number(headers.get("Age") ?? 0);
  return Math.min(Math.max(maxAge - (age > 0 ? age : 0), 0), LONGEST_LIFETIME_S);
}

// Waits for a promise, or until the caller does not want it any more. The promise goes on for others.
async function orAborted(promise, signal) {
  if (!signal) return promise;
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
