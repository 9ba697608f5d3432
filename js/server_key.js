// The public keys that a server publishes: fetched when they are needed, and kept for as long as the server allows.
import { KeyConfigurationError } from "./errors.js";
import { keysOf, MOST_ANSWER_BYTES } from "./key_answer.js";
import { receivedAtMost, request } from "./requests.js";

const MEDIA_TYPE = "application/ohttp-keys";
// The server's keys live for minutes. A longer lifetime is a mistake.
const LONGEST_LIFETIME_S = 3600;
const LONGEST_FETCH_MS = 10_000;

export class ServerKey {
  #url;
  #identities;
  #onFetched;
  #keys = null;
  #goodUntil = 0;
  #fetching = null;

  // For demonstrations only: keeps keys for longer than the server allows, so that the server refuses them.
  ignoreMaxAge = false;

  // One of the identities must have signed each answer; null takes any.
  // onFetched is called with the keys of each answer, with the seconds for which they may be used, and with the identity.
  constructor(url, identities = null, onFetched = () => {}) {
    this.#url = url;
    this.#identities = identities;
    this.#onFetched = onFetched;
  }

  // Resolves to the server's current keys, as keysOf returns them.
  async current(signal) {
    // Before a fetch begins: nobody would wait for it, and Node ends a process for an error that nobody handles.
    signal?.throwIfAborted();
    if (this.#keys && (this.ignoreMaxAge || performance.now() < this.#goodUntil)) return this.#keys;
    // All waiting callers share one fetch, so no single caller's signal may end it.
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = null;
    });
    return orAborted(this.#fetching, signal);
  }

  // Forgets keys that the server may no longer accept. Newer keys stay.
  discard(keys) {
    if (this.#keys === keys) this.#keys = null;
  }

  async #fetch() {
    const askedAt = performance.now();
    const response = await request(this.#url, { cache: "no-store", signal: AbortSignal.timeout(LONGEST_FETCH_MS) });
    const fault = faultOf(response);
    if (fault !== null) {
      await response.body?.cancel().catch(() => {});
      const { status, headers } = response;
      throw new KeyConfigurationError(`GET ${this.#url} was answered ${fault}`, { status, headers });
    }
    const answer = await receivedAtMost(response, MOST_ANSWER_BYTES);
    if (answer === null) throw new KeyConfigurationError(`GET ${this.#url} was answered with more than ${MOST_ANSWER_BYTES} bytes`);
    const keys = keysOf(answer);
    const signed = this.#identities ? await this.#identities.check(answer) : { identity: null, seconds: Number.POSITIVE_INFINITY };
    const lifetime = Math.min(lifetimeOf(response.headers), signed.seconds);
    this.#onFetched(keys, lifetime, signed.identity);
    this.#goodUntil = askedAt + lifetime * 1000;
    this.#keys = keys;
    return keys;
  }
}

// Returns what tells that a response is no key answer, or null.
function faultOf(response) {
  if (!response.ok) return response.status;
  const mediaType = (response.headers.get("Content-Type") ?? "").split(";")[0].trim().toLowerCase();
  return mediaType === MEDIA_TYPE ? null : `with ${mediaType || "no media type"}, not ${MEDIA_TYPE}`;
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
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
