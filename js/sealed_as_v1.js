// A request that is sealed as version 1 of the wire says, its method and its target included, and what opens its response.
import { utf8 } from "./bytes.js";
import { MissingEndError, StatusMismatchError } from "./errors.js";
import { framesOf, piecesOf } from "./frames.js";
import { setupSender } from "./hpke.js";
import { TAG_BYTES } from "./numbered_cipher.js";
import { cipherOfResponse } from "./response_cipher.js";
import { parsedResponseHead, parsedResponseHeader, requestHead, requestHeader } from "./wire_v1.js";

const REQUEST_INFO = utf8("server-keys request v1");
const RESPONSE_LABEL = utf8("server-keys response v1");
const EMPTY = new Uint8Array();

export class SealedAsV1 {
  version = "v1";
  // The number of the first frame of either body. The heads have number 0.
  first = 1;
  ciphertexts = [];
  #context;

  // keys: as keysOf returns them, with an X-Wing key. body: bytes, or null. kem: an X-Wing.
  static async seal({ xwing: { keyId, publicKey } }, { method, target, body }, kem) {
    const sealed = new SealedAsV1();
    const hasBody = body !== null && body.length > 0;
    const context = await setupSender(kem, publicKey, REQUEST_INFO);
    const sealedHead = await context.seal(requestHead({ method, target, hasBody }));
    sealed.kem = kem.name;
    sealed.#context = context;
    // The value of Ehbp-Encapsulated-Key.
    sealed.header = requestHeader({ keyId, encapsulatedKey: context.encapsulatedKey, sealedHead });
    if (hasBody) {
      for (const piece of [...piecesOf(body), EMPTY]) sealed.ciphertexts.push(await context.seal(piece));
    }
    return sealed;
  }

  // Tells whether an answer that is not sealed may say that the server does not accept the key: a server that has gone
  // back to plain EHBP answers 400.
  refusesKey(status) {
    return status === 400 || status === 422;
  }

  // Returns an async generator function: it takes a body's stream, and yields what each frame carried.
  // header: the value of Ehbp-Response-Nonce. status: the one that arrived.
  async opener(header, status) {
    const { nonce, sealedHead } = parsedResponseHeader(header);
    const cipher = await cipherOfResponse(this.#context, RESPONSE_LABEL, nonce);
    const plaintext = await cipher.open(sealedHead).catch(() => {
      throw new TypeError("its head is not authentic");
    });
    const head = parsedResponseHead(plaintext);
    if (head.status !== status) throw new StatusMismatchError(head.status, status);
    return async function* (stream, onFrame) {
      let [index, hasEnded] = [1, !head.hasBody];
      for await (const ciphertext of framesOf(stream, { shortest: TAG_BYTES, isOver: () => hasEnded })) {
        onFrame(index, ciphertext);
        const plaintext = await cipher.openFrame(index, ciphertext);
        hasEnded = plaintext.length === 0;
        if (!hasEnded) yield { index, plaintext };
        index += 1;
      }
      if (!hasEnded) throw new MissingEndError("The response was cut: it stopped before its end.");
    };
  }
}
