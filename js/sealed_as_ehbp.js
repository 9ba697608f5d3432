// A request that is sealed as plain EHBP, and what opens its response.
import { fromHex, toHex, utf8 } from "./bytes.js";
import { dhkem } from "./dhkem.js";
import { KeyConfigurationError } from "./errors.js";
import { framesOf, piecesOf } from "./frames.js";
import { setupSender } from "./hpke.js";
import { cipherOfResponse } from "./response_cipher.js";

const KEY_MISMATCH = "urn:ietf:params:ehbp:error:key-config";
const REQUEST_INFO = utf8("ehbp request");
const RESPONSE_LABEL = utf8("ehbp response");

export class SealedAsEhbp {
  version = "EHBP";
  kem = "X25519";
  // The number of the first frame of either body.
  first = 0;
  ciphertexts = [];
  #context;

  // body: bytes. Plain EHBP has no sealed form of a request without one.
  static async seal({ x25519 }, { body }) {
    if (body === null) {
      throw new KeyConfigurationError(
        "A request without a body travels unsealed in plain EHBP, so it was not sent: this server, or this browser, has no X-Wing",
      );
    }
    const sealed = new SealedAsEhbp();
    sealed.#context = await setupSender(dhkem(), x25519, REQUEST_INFO);
    // The first frame shows the server which key it is. So an empty body has one, too.
    const pieces = body.length > 0 ? piecesOf(body) : [body];
    for (const piece of pieces) sealed.ciphertexts.push(await sealed.#context.seal(piece));
    return sealed;
  }

  // The value of Ehbp-Encapsulated-Key.
  get header() {
    return toHex(this.#context.encapsulatedKey);
  }

  // Tells whether an answer that is not sealed says that the server does not accept the key.
  refusesKey(status, text) {
    return status === 422 && problemType(text) === KEY_MISMATCH;
  }

  // Returns an async generator function: it takes a body's stream, and yields what each frame carried.
  // header: the value of Ehbp-Response-Nonce. onFrame: called with the number and the ciphertext of each frame.
  async opener(header) {
    if (!/^[0-9a-f]{64}$/i.test(header)) throw new TypeError("it must be 64 hex digits");
    const cipher = await cipherOfResponse(this.#context, RESPONSE_LABEL, fromHex(header));
    return async function* (stream, onFrame) {
      let index = 0;
      for await (const ciphertext of framesOf(stream)) {
        onFrame(index, ciphertext);
        yield { index, plaintext: await cipher.openFrame(index, ciphertext) };
        index += 1;
      }
    };
  }
}

function problemType(text) {
  try {
    return JSON.parse(text).type;
  } catch {
    return undefined;
  }
}
