// The sender's half of HPKE base mode (RFC 9180) with HKDF-SHA256 and AES-256-GCM, over any KEM.
// WebCrypto does all the cryptography. This module adds the RFC's labels and the order of its steps.
import { concat, utf8 } from "./bytes.js";
import { KeyConfigurationError } from "./errors.js";
import { HASH_BYTES, labeledExpand, labeledExtract } from "./hkdf.js";
import { KEY_BYTES, NONCE_BYTES, NumberedCipher } from "./numbered_cipher.js";

const KDF_AND_AEAD = Uint8Array.of(0x00, 0x01, 0x00, 0x02);
const MODE_BASE = Uint8Array.of(0x00);
const EMPTY = new Uint8Array();

// Establishes a context towards the owner of a public key.
// kem: its id, its name, and encapsulate(publicKey), which resolves to { encapsulatedKey, sharedSecret }.
export async function setupSender(kem, publicKey, info) {
  const { encapsulatedKey, sharedSecret } = await kem.encapsulate(publicKey).catch((cause) => {
    throw new KeyConfigurationError(`The server's ${kem.name} key cannot be used: nothing was sealed to it.`, { cause });
  });
  const suite = concat(utf8("HPKE"), Uint8Array.of(kem.id >> 8, kem.id & 0xff), KDF_AND_AEAD);
  const keyScheduleContext = concat(
    MODE_BASE,
    await labeledExtract(suite, EMPTY, "psk_id_hash", EMPTY),
    await labeledExtract(suite, EMPTY, "info_hash", info),
  );
  const secret = await labeledExtract(suite, sharedSecret, "secret", EMPTY);
  const derive = (label, length) => labeledExpand(suite, secret, label, keyScheduleContext, length);
  const sealer = await NumberedCipher.create(await derive("key", KEY_BYTES), await derive("base_nonce", NONCE_BYTES));
  return new SenderContext(suite, encapsulatedKey, sealer, await derive("exp", HASH_BYTES));
}

class SenderContext {
  #suite;
  #sealer;
  #exporterSecret;

  constructor(suite, encapsulatedKey, sealer, exporterSecret) {
    this.encapsulatedKey = encapsulatedKey;
    this.#suite = suite;
    this.#sealer = sealer;
    this.#exporterSecret = exporterSecret;
  }

  seal(plaintext, additionalData = EMPTY) {
    return this.#sealer.seal(plaintext, additionalData);
  }

  exportSecret(exporterContext, length) {
    return labeledExpand(this.#suite, this.#exporterSecret, "sec", exporterContext, length);
  }
}
