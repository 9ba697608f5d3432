// DHKEM(X25519, HKDF-SHA256): the key encapsulation of plain EHBP (RFC 9180, section 4.1).
import { concat, utf8 } from "./bytes.js";
import { HASH_BYTES, labeledExpand, labeledExtract } from "./hkdf.js";

const ID = 0x0020;
const SUITE = concat(utf8("KEM"), Uint8Array.of(ID >> 8, ID & 0xff));
const EMPTY = new Uint8Array();

// Only tests pass an ephemeral key pair.
export function dhkem(ephemeral = null) {
  return {
    id: ID,
    name: "X25519",
    // Resolves to a secret that it shares with the owner of publicKey (32 bytes), and to what the owner needs for it.
    async encapsulate(publicKey) {
      const recipient = await crypto.subtle.importKey("raw", publicKey, { name: "X25519" }, false, []);
      const own = ephemeral ?? (await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]));
      const encapsulatedKey = new Uint8Array(await crypto.subtle.exportKey("raw", own.publicKey));
      // WebCrypto itself refuses the all-zero secret of a point of small order.
      const dh = new Uint8Array(await crypto.subtle.deriveBits({ name: "X25519", public: recipient }, own.privateKey, 256));
      const pseudorandomKey = await labeledExtract(SUITE, EMPTY, "eae_prk", dh);
      const kemContext = concat(encapsulatedKey, publicKey);
      const sharedSecret = await labeledExpand(SUITE, pseudorandomKey, "shared_secret", kemContext, HASH_BYTES);
      return { encapsulatedKey, sharedSecret };
    },
  };
}
