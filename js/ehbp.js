// A client of the Encrypted HTTP Body Protocol: seals request bodies to the server's current key and opens responses.
import { concat, fromHex, toHex, utf8 } from "./bytes.js";
import { frame, framesOf } from "./frames.js";
import { expand, extract, KEY_BYTES, NONCE_BYTES, NumberedCipher, setupSender } from "./hpke.js";
import { received, request } from "./requests.js";

const CONFIG_PATH = "/.well-known/hpke-keys";
const CONFIG_MEDIA_TYPE = "application/ohttp-keys";
const CONFIG_START = "000020"; // key id 0, KEM X25519
const CONFIG_SUITE = "000400010002"; // one suite: HKDF-SHA256, AES-256-GCM
const KEY_MISMATCH = "urn:ietf:params:ehbp:error:key-config";
const REQUEST_INFO = utf8("ehbp request");
const RESPONSE_LABEL = utf8("ehbp response");

export function publicKeyOfConfig(config) {
  const hex = toHex(config);
  if (!hex.startsWith(CONFIG_START) || hex.slice(70, 82) !== CONFIG_SUITE) {
    throw new Error(`not a key configuration of X25519, HKDF-SHA256 and AES-256-GCM: ${hex.slice(0, 100)}`);
  }
  return config.slice(3, 35);
}

export async function responseCipher(secret, encapsulatedKey, responseNonce) {
  const pseudorandomKey = await extract(concat(encapsulatedKey, responseNonce), secret);
  const key = await expand(pseudorandomKey, utf8("key"), KEY_BYTES);
  return NumberedCipher.create(key, await expand(pseudorandomKey, utf8("nonce"), NONCE_BYTES));
}

// A response came that nobody sealed. What it says may come from anybody on the way.
export class UnsealedResponseError extends Error {
  constructor(status, text) {
    super(`The answer ${status} was not sealed, so anybody on the way may have written it: ${text.slice(0, 300)}`);
    this.status = status;
  }
}

export class EhbpClient {
  // Told what travels, as it travels; see the calls below.
  #onWire;
  #key = null;
  #fetches = 0;

  // For those who want to see a stale key refused and replaced: keep a key for longer than the server says.
  ignoreMaxAge = false;

  constructor({ onWire = () => {} } = {}) {
    this.#onWire = onWire;
  }

  // Resolves to { status, contentType, pieces }; pieces yields the plaintext of each frame as it arrives.
  async post(path, body, { contentType = "application/json", signal } = {}) {
    for (let mayRetry = true; ; mayRetry = false) {
      const { context, response } = await this.#sendSealed(path, body, contentType, signal);
      const nonce = response.headers.get("Ehbp-Response-Nonce");
      if (nonce !== null) return this.#opened(context, response, nonce);
      if (response.ok) {
        await response.body?.cancel();
        throw new UnsealedResponseError(response.status, "a success without a seal is never read");
      }
      const text = await received(response.text());
      if (!mayRetry || response.status !== 422 || problemType(text) !== KEY_MISMATCH) {
        throw new UnsealedResponseError(response.status, text);
      }
      this.#onWire({ kind: "mismatch", status: response.status });
      this.#key = null;
    }
  }

  async #sendSealed(path, body, contentType, signal) {
    const publicKey = await this.#currentKey(signal);
    const context = await setupSender(publicKey, REQUEST_INFO);
    const ciphertext = await context.seal(body);
    const encapsulatedKey = toHex(context.encapsulatedKey);
    this.#onWire({ kind: "request", path, publicKey: toHex(publicKey), encapsulatedKey });
    this.#onWire({ kind: "frame", sent: true, index: 0, ciphertext });
    const headers = { "Content-Type": contentType, "Ehbp-Encapsulated-Key": encapsulatedKey };
    const response = await request(path, { method: "POST", headers, body: frame(ciphertext), signal });
    return { context, response };
  }

  async #opened(context, response, nonce) {
    if (!/^[0-9a-f]{64}$/i.test(nonce)) throw new Error("the header Ehbp-Response-Nonce is not 64 hex digits");
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

  async #currentKey(signal) {
    if (this.#key && (this.ignoreMaxAge || performance.now() < this.#key.goodUntil)) return this.#key.publicKey;
    const number = ++this.#fetches;
    const response = await request(CONFIG_PATH, { cache: "no-store", signal });
    if (!response.ok) throw new Error(`GET ${CONFIG_PATH} was answered ${response.status}`);
    if (response.headers.get("Content-Type") !== CONFIG_MEDIA_TYPE) throw new Error(`${CONFIG_PATH} is not ${CONFIG_MEDIA_TYPE}`);
    const publicKey = publicKeyOfConfig(new Uint8Array(await received(response.arrayBuffer())));
    const maxAge = Number(/max-age=(\d+)/.exec(response.headers.get("Cache-Control") ?? "")?.[1] ?? 0);
    this.#onWire({ kind: "key", publicKey: toHex(publicKey), maxAge });
    // An answer that was overtaken by a later fetch does not replace the newer key.
    if (number > (this.#key?.number ?? 0)) {
      this.#key = { publicKey, number, goodUntil: performance.now() + maxAge * 1000 };
    }
    return this.#key.publicKey;
  }
}

function problemType(text) {
  try {
    return JSON.parse(text).type;
  } catch {
    return undefined;
  }
}
