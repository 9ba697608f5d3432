// The cipher that opens a response: both ends derive it from the request (RFC 9458, section 4.4).
import { concat, utf8 } from "./bytes.js";
import { expand, extract } from "./hkdf.js";
import { KEY_BYTES, NONCE_BYTES, NumberedCipher } from "./numbered_cipher.js";

// context: the request's HPKE context. label: what the secret is exported for.
export async function cipherOfResponse(context, label, nonce) {
  return responseCipher(await context.exportSecret(label, KEY_BYTES), context.encapsulatedKey, nonce);
}

export async function responseCipher(secret, encapsulatedKey, nonce) {
  const pseudorandomKey = await extract(concat(encapsulatedKey, nonce), secret);
  const key = await expand(pseudorandomKey, utf8("key"), KEY_BYTES);
  return NumberedCipher.create(key, await expand(pseudorandomKey, utf8("nonce"), NONCE_BYTES));
}
