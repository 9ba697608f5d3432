// A client of the Encrypted HTTP Body Protocol: seals request bodies to a server's current key and opens the responses.
import { concat, fromHex, toHex, utf8 } from "./bytes.js";
import { frame, framesOf } from "./frames.js";
import { expand, extract, KEY_BYTES, NONCE_BYTES, NumberedCipher, setupSender } from "./hpke.js";
import { received, request } from "./requests.js";
import { ServerKey } from "./server_key.js";

const KEY_PATH = "/.well-known/hpke-keys";
const KEY_MISMATCH = "urn:ietf:params:ehbp:error:key-config";
const IS_NONCE = /^[0-9a-f]{64}$/i;
const REQUEST_INFO = utf8("ehbp request");
const RESPONSE_LABEL = utf8("ehbp response");

// The answer to a sealed request is not sealed. Anybody between client and server may have written it.
export class UnsealedResponseError extends Error {
  constructor(status, text) {
    super(`The answer ${status} was not sealed, so anybody on the way may have written it: ${text.slice(0, 300)}`);
    this.status = status;
  }
}

export class EhbpClient {
  #base;
  #onWire;
  #serverKey;

  // baseUrl: the server, from which the paths of requests are resolved; the page's own server by default.
  // onWire: called with each key, header and frame as it travels. The demo shows them.
  constructor({ baseUrl = globalThis.location?.href, onWire = () => {} } = {}) {
    if (!/^https?:/i.test(baseUrl) || !URL.canParse(baseUrl)) {
      throw new TypeError(`baseUrl must be a server's URL such as "https://my-server", not ${JSON.stringify(baseUrl)}`);
    }
    this.#base = new URL(baseUrl);
    this.#onWire = onWire;
    this.#serverKey = new ServerKey(this.#urlOf(KEY_PATH), (publicKey, maxAge) => {
      this.#onWire({ kind: "key", publicKey: toHex(publicKey), maxAge });
    });
  }

  // For demonstrations only: keeps using a key after its time, so that the server refuses it.
  set ignoreMaxAge(ignore) {
    this.#serverKey.ignoreMaxAge = ignore;
  }

  // Sends a body (a string or a Uint8Array) to a path of the server. Resolves to { status, contentType, pieces }.
  // pieces yields { index, plaintext } for each frame of the response as soon as it has arrived.
  async post(path, body, { headers = {}, signal } = {}) {
    const url = this.#urlOf(path);
    const plaintext = typeof body === "string" ? utf8(body) : body;
    for (let mayRetry = true; ; mayRetry = false) {
      const publicKey = await this.#serverKey.current(signal);
      const { context, response } = await this.#sendSealed(url, publicKey, plaintext, headers, signal).catch((error) => {
        this.#serverKey.discard(publicKey);
        throw error;
      });
      const nonce = response.headers.get("Ehbp-Response-Nonce");
      if (nonce !== null && IS_NONCE.test(nonce)) return this.#opened(context, response, nonce);
      // The server may have refused the key, and a gateway may have replaced the refusal. So fetch the key anew.
      this.#serverKey.discard(publicKey);
      if (response.ok || nonce !== null) {
        await response.body?.cancel();
        if (nonce !== null) throw new Error("the header Ehbp-Response-Nonce is not 64 hex digits");
        throw new UnsealedResponseError(response.status, "a success without a seal is never read");
      }
      const text = await received(response.text());
      if (!mayRetry || response.status !== 422 || problemType(text) !== KEY_MISMATCH) {
        throw new UnsealedResponseError(response.status, text);
      }
      this.#onWire({ kind: "mismatch", status: response.status });
    }
  }

  #urlOf(path) {
    const url = new URL(path, this.#base);
    // A body is sealed to one server's key, so it must not go to another.
    if (url.origin !== this.#base.origin) throw new TypeError(`${url} is not on the server ${this.#base.origin}`);
    return url.href;
  }

  async #sendSealed(url, publicKey, plaintext, headers, signal) {
    const context = await setupSender(publicKey, REQUEST_INFO);
    const ciphertext = await context.seal(plaintext);
    const encapsulatedKey = toHex(context.encapsulatedKey);
    const path = url.slice(this.#base.origin.length);
    this.#onWire({ kind: "request", path, publicKey: toHex(publicKey), encapsulatedKey });
    this.#onWire({ kind: "frame", sent: true, index: 0, ciphertext });
    const allHeaders = new Headers({ "Content-Type": "application/json" });
    new Headers(headers).forEach((value, name) => allHeaders.set(name, value));
    allHeaders.set("Ehbp-Encapsulated-Key", encapsulatedKey);
    const response = await request(url, { method: "POST", headers: allHeaders, body: frame(ciphertext), signal });
    return { context, response };
  }

  async #opened(context, response, nonce) {
    this.#onWire({ kind: "response", status: response.status, nonce });
    const secret = await context.exportSecret(RESPONSE_LABEL, KEY_BYTES);
    const cipher = await responseCipher(secret, context.encapsulatedKey, fromHex(nonce));
    return {
      status: response.status,
      contentType: response.headers.get("Content-Type") ?? "",
      pieces: this.#pieces(response.body, cipher),
    };
  }

  async *#pieces(stream, cipher) {
    let index = 0;
    for await (const ciphertext of framesOf(stream)) {
      this.#onWire({ kind: "frame", sent: false, index, ciphertext });
      const plaintext = await cipher.open(ciphertext).catch(() => {
        throw new Error(`frame ${index} of the response is not authentic: it was changed on the way, or one is missing`);
      });
      yield { index, plaintext };
      index += 1;
    }
  }
}

// Derives the cipher that opens a response from the request's exported secret and the response's nonce.
export async function responseCipher(secret, encapsulatedKey, responseNonce) {
  const pseudorandomKey = await extract(concat(encapsulatedKey, responseNonce), secret);
  const key = await expand(pseudorandomKey, utf8("key"), KEY_BYTES);
  return NumberedCipher.create(key, await expand(pseudorandomKey, utf8("nonce"), NONCE_BYTES));
}

function problemType(text) {
  try {
    return JSON.parse(text).type;
  } catch {
    return undefined;
  }
}
