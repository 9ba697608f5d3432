// A client that seals requests to a server's current key and opens the responses: by version 1 of the wire where the
// server and this engine have X-Wing, and by plain EHBP (Encrypted HTTP Body Protocol) elsewhere.
import { extracted } from "./bodies.js";
import { concat, toHex } from "./bytes.js";
import { KeyConfigurationError, StatusMismatchError, UnsealedResponseError } from "./errors.js";
import { frame } from "./frames.js";
import { Identities } from "./identity.js";
import { KEY_PATH, sealedTarget } from "./place.js";
import { receivedAtMost, request } from "./requests.js";
import { SealedAsEhbp } from "./sealed_as_ehbp.js";
import { SealedAsV1 } from "./sealed_as_v1.js";
import { ServerKey } from "./server_key.js";
import { xwing } from "./xwing.js";

export { KeyConfigurationError, KeyRejectedError, MissingEndError, StatusMismatchError, UnsealedResponseError } from "./errors.js";

const MOST_UNSEALED_BYTES = 64 * 1024;
const METHOD = /^[!#$%&'*+.^_`|~0-9A-Z-]{1,32}$/;
// Browsers ask with OPTIONS before they know of a key. fetch sends none of the others.
const METHODS_NEVER_SEALED = ["OPTIONS", "CONNECT", "TRACE", "TRACK"];
const METHODS_WITHOUT_BODY = ["GET", "HEAD"];
// They describe the bytes of a body, or ask for a part of one. On the way the body is a sealed one.
const NOT_SEALED_WITH = ["Content-Length", "Transfer-Encoding", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Range", "If-Range"];

export class EhbpClient {
  #base;
  #keyUrl;
  #requireV1;
  #xwing;
  #onWire;
  #serverKey;

  // baseUrl: the server, from which the paths of requests are resolved; the page's own server by default.
  // keyUrl: where the server publishes its key, resolved in the same way. Requests are sealed for their path below it.
  // identity: the server's identity ("ed25519:..."), or several in an array. Keys that none of them has signed are refused.
  // requireV1: refuse a server, and an engine, that speaks plain EHBP alone.
  // xwing: the X-Wing that version 1 uses, as js/xwing.js describes it; that of WebCrypto by default, null for none.
  // onWire: called with each key, header and frame as it travels. The demo shows them.
  constructor({ baseUrl = globalThis.location?.href, keyUrl = KEY_PATH, identity = null, requireV1 = false, xwing: kem, onWire = () => {} } = {}) {
    if (!/^https?:/i.test(baseUrl) || !URL.canParse(baseUrl)) {
      throw new TypeError(`baseUrl must be a server's URL such as "https://my-server", not ${JSON.stringify(baseUrl)}`);
    }
    this.#base = withoutCredentials(new URL(baseUrl));
    this.#keyUrl = this.#urlOf(keyUrl);
    this.#requireV1 = requireV1;
    this.#xwing = kem;
    this.#onWire = onWire;
    const identities = identity === null ? null : new Identities(identity);
    this.#serverKey = new ServerKey(this.#keyUrl.href, identities, ({ x25519, xwing }, maxAge, signedBy) => {
      const path = pathOf(this.#keyUrl);
      this.#onWire({ kind: "key", path, publicKey: toHex(x25519), xwingKeyId: xwing?.keyId ?? null, maxAge, identity: signedBy });
    });
  }

  // For demonstrations only: keeps using a key after its time, so that the server refuses it.
  set ignoreMaxAge(ignore) {
    this.#serverKey.ignoreMaxAge = ignore;
  }

  // Sends a body (a string, bytes, a Blob, a FormData or a URLSearchParams) to a path of the server.
  // Resolves to { status, contentType, headers, version, pieces }. The headers are not sealed on the way.
  // version: "v1" or "EHBP". pieces yields { index, plaintext } for each frame of the response as soon as it has arrived.
  post(path, body, { headers = {}, signal } = {}) {
    return this.request("POST", path, { body, headers, signal });
  }

  // Works like post, with any method but OPTIONS. Without a body it needs version 1: plain EHBP could not seal it.
  async request(method, path, { body = null, headers = {}, signal } = {}) {
    if (globalThis.crypto?.subtle === undefined) throw new KeyConfigurationError(NO_CRYPTO);
    const url = this.#urlOf(path);
    const message = { method: checkedMethod(method, body), url, ...(await extracted(body)) };
    for (let mayRetry = true; ; mayRetry = false) {
      const keys = await this.#serverKey.current(signal);
      try {
        const sealed = await this.#sealed(keys, message);
        const response = await this.#send(sealed, keys, message, headers, signal);
        const nonce = response.headers.get("Ehbp-Response-Nonce");
        if (nonce !== null) return await this.#opened(sealed, response, nonce, signal);
        const text = await this.#unsealed(response);
        if (!mayRetry || !sealed.refusesKey(response.status, text)) throw new UnsealedResponseError(response.status, text, response.headers);
        this.#onWire({ kind: "mismatch", status: response.status });
      } catch (error) {
        // The server may have refused the key, and a gateway may have replaced the refusal. So fetch the key anew.
        this.#serverKey.discard(keys);
        throw reasonOf(error, signal);
      }
      this.#serverKey.discard(keys);
    }
  }

  #urlOf(path) {
    const url = withoutCredentials(new URL(path, this.#base));
    // A body is sealed to one server's key, so it must not go to another.
    if (url.origin !== this.#base.origin) throw new TypeError(`${url} is not on the server ${this.#base.origin}`);
    return url;
  }

  async #sealed(keys, { method, url, body }) {
    const kem = await this.#kemFor(keys);
    if (kem !== null) return SealedAsV1.seal(keys, { method, target: await sealedTarget(url, this.#keyUrl), body }, kem);
    if (!this.#requireV1) return SealedAsEhbp.seal(keys, { body });
    const lacking = keys.xwing === null ? `${this.#keyUrl} offers no X-Wing key` : "this browser's WebCrypto has no X-Wing";
    throw new KeyConfigurationError(`Version 1 of the wire is required, but ${lacking}: nothing was sent.`);
  }

  // Resolves to an X-Wing if both the server and this engine have one, or else to null.
  async #kemFor(keys) {
    if (keys.xwing === null) return null;
    return this.#xwing === undefined ? xwing() : this.#xwing;
  }

  async #send({ version, kem, header, first, ciphertexts }, keys, { method, url, body, mediaType }, headers, signal) {
    this.#onWire({ kind: "request", method, path: pathOf(url), version, kem, publicKey: toHex(keys.x25519), header });
    for (const [number, ciphertext] of ciphertexts.entries()) {
      this.#onWire({ kind: "frame", sent: true, index: first + number, ciphertext });
    }
    const allHeaders = new Headers(body === null ? {} : { "Content-Type": mediaType ?? "application/json" });
    new Headers(headers).forEach((value, name) => allHeaders.set(name, value));
    for (const name of NOT_SEALED_WITH) allHeaders.delete(name);
    allHeaders.set("Ehbp-Encapsulated-Key", header);
    const framed = ciphertexts.length > 0 ? concat(...ciphertexts.map(frame)) : null;
    // A cached response was sealed for another request.
    return request(url.href, { method, headers: allHeaders, body: framed, cache: "no-store", signal });
  }

  async #opened(sealed, response, nonce, signal) {
    this.#onWire({ kind: "response", status: response.status, header: nonce });
    const open = await sealed.opener(nonce, response.status).catch(async (error) => {
      await response.body?.cancel().catch(() => {});
      if (error instanceof StatusMismatchError) throw error;
      throw new UnsealedResponseError(response.status, `the header Ehbp-Response-Nonce cannot be used: ${error.message}`, response.headers);
    });
    const opened = open(response.body, (index, ciphertext) => this.#onWire({ kind: "frame", sent: false, index, ciphertext }));
    const pieces = begun(opened, response.body, signal);
    await pieces.next();
    return {
      status: response.status,
      contentType: response.headers.get("Content-Type") ?? "",
      headers: response.headers,
      version: sealed.version,
      pieces,
    };
  }

  // Resolves to the text of an answer that is not sealed, unless it says that the request has succeeded.
  async #unsealed(response) {
    if (response.ok) {
      await response.body?.cancel().catch(() => {});
      throw new UnsealedResponseError(response.status, "a success without a seal is never read", response.headers);
    }
    const text = await receivedAtMost(response, MOST_UNSEALED_BYTES);
    return text === null ? `more than ${MOST_UNSEALED_BYTES} bytes, which were not read` : new TextDecoder().decode(text);
  }
}

// Yields the pieces of a response, after one that is nothing. Its maker takes that one: a generator that was not begun does
// nothing when it is returned. Then the response of a caller who wants no piece of it would stay open.
async function* begun(pieces, stream, signal) {
  try {
    yield;
    yield* pieces;
  } catch (error) {
    throw reasonOf(error, signal);
  } finally {
    await stream?.cancel().catch(() => {}); // what has a reader was cancelled by it
  }
}

// What a caller has aborted ends with the caller's own reason. Engines tell it in several ways, and not always.
const reasonOf = (error, signal) => (signal?.aborted ? signal.reason : error);

const NO_CRYPTO = "This page has no WebCrypto, so nothing was sent: browsers give it to pages of https and of localhost alone";

const pathOf = ({ pathname, search }) => pathname + search;

// fetch refuses a URL with credentials.
function withoutCredentials(url) {
  if (url.username || url.password) throw new TypeError("a URL with a user name or a password cannot be fetched: give an Authorization header");
  return url;
}

function checkedMethod(method, body) {
  const upper = String(method).toUpperCase();
  if (!METHOD.test(upper) || METHODS_NEVER_SEALED.includes(upper)) {
    throw new TypeError(`method must be one that can be sealed, such as "GET", not ${JSON.stringify(method)}`);
  }
  if (METHODS_WITHOUT_BODY.includes(upper) && body !== null) throw new TypeError(`a ${upper} request has no body`);
  return upper;
}
