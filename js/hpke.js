// The sender's half of HPKE base mode (RFC 9180): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
// WebCrypto does all the cryptography. This module adds the RFC's labels and the order of its steps.
import { concat, utf8 } from "./bytes.js";

const KEM_SUITE = concat(utf8("KEM"), Uint8Array.of(0x00, 0x20));
const HPKE_SUITE = concat(utf8("HPKE"), Uint8Array.of(0x00, 0x20, 0x00, 0x01, 0x00, 0x02));
const VERSION = utf8("HPKE-v1");
const MODE_BASE = Uint8Array.of(0x00);
const EMPTY = new Uint8Array();
const HASH_BYTES = 32;

export const KEY_BYTES = 32;
export const NONCE_BYTES = 12;

// Establishes a context towards the owner of publicKey (32 bytes). Only tests pass an ephemeral key pair.
export async function setupSender(publicKey, info, ephemeral = null) {
  const recipient = await crypto.subtle.importKey("raw", publicKey, { name: "X25519" }, false, []);
  const own = ephemeral ?? (await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]));
  const encapsulatedKey = new Uint8Array(await crypto.subtle.exportKey("raw", own.publicKey));
  // WebCrypto itself refuses the all-zero secret of a point of small order.
  const dh = new Uint8Array(await crypto.subtle.deriveBits({ name: "X25519", public: recipient }, own.privateKey, 256));
  const sharedSecret = await extractAndExpand(dh, concat(encapsulatedKey, publicKey));

  const keyScheduleContext = concat(
    MODE_BASE,
    await labeledExtract(HPKE_SUITE, EMPTY, "psk_id_hash", EMPTY),
    await labeledExtract(HPKE_SUITE, EMPTY, "info_hash", info),
  );
  const secret = await labeledExtract(HPKE_SUITE, sharedSecret, "secret", EMPTY);
  const derive = (label, length) => labeledExpand(HPKE_SUITE, secret, label, keyScheduleContext, length);
  const sealer = await NumberedCipher.create(await derive("key", KEY_BYTES), await derive("base_nonce", NONCE_BYTES));
  return new SenderContext(encapsulatedKey, sealer, await derive("exp", HASH_BYTES));
}

class SenderContext {
  #sealer;
  #exporterSecret;

  constructor(encapsulatedKey, sealer, exporterSecret) {
    this.encapsulatedKey = encapsulatedKey;
    this.#sealer = sealer;
    this.#exporterSecret = exporterSecret;
  }

  seal(plaintext, additionalData = EMPTY) {
    return this.#sealer.seal(plaintext, additionalData);
  }

  exportSecret(exporterContext, length) {
    return labeledExpand(HPKE_SUITE, this.#exporterSecret, "sec", exporterContext, length);
  }
}

// AES-256-GCM whose nonce is a base nonce XOR a message's number (RFC 9180, section 5.2).
export class NumberedCipher {
  #key;
  #baseNonce;
  #number = 0n;

  static async create(key, baseNonce) {
    const cipher = new NumberedCipher();
    cipher.#key = await crypto.subtle.importKey("raw", key, "AES-GCM", false, ["encrypt", "decrypt"]);
    cipher.#baseNonce = baseNonce;
    return cipher;
  }

  async seal(plaintext, additionalData = EMPTY) {
    return new Uint8Array(await crypto.subtle.encrypt(this.#next(additionalData), this.#key, plaintext));
  }

  // Rejects if the ciphertext is not the authentic next one.
  async open(ciphertext, additionalData = EMPTY) {
    return new Uint8Array(await crypto.subtle.decrypt(this.#next(additionalData), this.#key, ciphertext));
  }

  #next(additionalData) {
    const iv = this.#baseNonce.slice();
    const view = new DataView(iv.buffer);
    view.setBigUint64(NONCE_BYTES - 8, view.getBigUint64(NONCE_BYTES - 8) ^ this.#number);
    this.#number += 1n;
    return { name: "AES-GCM", iv, additionalData };
  }
}

// HKDF-SHA256 (RFC 5869). Its two steps are HMACs; WebCrypto's HKDF offers them only as one.
export async function extract(salt, keyMaterial) {
  // An HMAC key of zeros is the same as none, which WebCrypto does not take.
  return hmac(salt.length > 0 ? salt : new Uint8Array(HASH_BYTES), keyMaterial);
}

export async function expand(pseudorandomKey, info, length) {
  if (length > HASH_BYTES) throw new RangeError(`HKDF for up to ${HASH_BYTES} bytes, not ${length}`);
  return (await hmac(pseudorandomKey, concat(info, Uint8Array.of(1)))).slice(0, length);
}

async function hmac(key, message) {
  const imported = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, message));
}

async function extractAndExpand(dh, kemContext) {
  const pseudorandomKey = await labeledExtract(KEM_SUITE, EMPTY, "eae_prk", dh);
  return labeledExpand(KEM_SUITE, pseudorandomKey, "shared_secret", kemContext, HASH_BYTES);
}

function labeledExtract(suite, salt, label, keyMaterial) {
  return extract(salt, concat(VERSION, suite, utf8(label), keyMaterial));
}

function labeledExpand(suite, pseudorandomKey, label, info, length) {
  return expand(pseudorandomKey, concat(Uint8Array.of(length >> 8, length & 0xff), VERSION, suite, utf8(label), info), length);
}
