// HKDF-SHA256 (RFC 5869), and its labelled form (RFC 9180, section 4).
// Its two steps are HMACs; WebCrypto's HKDF offers them only as one.
import { concat, utf8 } from "./bytes.js";

export const HASH_BYTES = 32;

const VERSION = utf8("HPKE-v1");

export async function extract(salt, keyMaterial) {
  // An HMAC key of zeros is the same as none, which WebCrypto does not take.
  return hmac(salt.length > 0 ? salt : new Uint8Array(HASH_BYTES), keyMaterial);
}

export async function expand(pseudorandomKey, info, length) {
  if (length > HASH_BYTES) throw new RangeError(`HKDF for up to ${HASH_BYTES} bytes, not ${length}`);
  return (await hmac(pseudorandomKey, concat(info, Uint8Array.of(1)))).slice(0, length);
}

export function labeledExtract(suite, salt, label, keyMaterial) {
  return extract(salt, concat(VERSION, suite, utf8(label), keyMaterial));
}

export function labeledExpand(suite, pseudorandomKey, label, info, length) {
  return expand(pseudorandomKey, concat(Uint8Array.of(length >> 8, length & 0xff), VERSION, suite, utf8(label), info), length);
}

async function hmac(key, message) {
  const imported = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, message));
}
