// AES-256-GCM whose nonce is a base nonce XOR a message's number (RFC 9180, section 5.2).

export const KEY_BYTES = 32;
export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;

const EMPTY = new Uint8Array();

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

  // Works like open, and names the frame of a response that is not authentic.
  openFrame(index, ciphertext) {
    return this.open(ciphertext).catch(() => {
      throw new Error(`frame ${index} of the response is not authentic: it was changed on the way, or one is missing`);
    });
  }

  #next(additionalData) {
    const iv = this.#baseNonce.slice();
    const view = new DataView(iv.buffer);
    view.setBigUint64(NONCE_BYTES - 8, view.getBigUint64(NONCE_BYTES - 8) ^ this.#number);
    this.#number += 1n;
    return { name: "AES-GCM", iv, additionalData };
  }
}
