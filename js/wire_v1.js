// Version 1 of the wire, apart from its cryptography: what the two headers carry, and what the sealed heads say.
import { fromBase64url, toBase64url, toHex, utf8 } from "./bytes.js";

const NONCE_BYTES = 32;
const END = " end";

// Returns the value of Ehbp-Encapsulated-Key.
export function requestHeader({ keyId, encapsulatedKey, sealedHead }) {
  return `1.${toHex([keyId])}.${toBase64url(encapsulatedKey)}.${toBase64url(sealedHead)}`;
}

// Returns the plaintext of a request's head. target: as sealedTarget makes it.
export function requestHead({ method, target, hasBody }) {
  return utf8(`${method} ${target}${hasBody ? "" : END}`);
}

// Returns { nonce, sealedHead } of a value of Ehbp-Response-Nonce.
export function parsedResponseHeader(value) {
  const [version, ...fields] = value.split(".");
  if (version !== "1" || fields.length !== 2) throw new TypeError("it must have version 1 and two more fields");
  const [nonce, sealedHead] = fields.map(fromBase64url);
  if (nonce.length !== NONCE_BYTES) throw new TypeError(`the nonce must have ${NONCE_BYTES} bytes, not ${nonce.length}`);
  return { nonce, sealedHead };
}

// Returns { status, hasBody } of the plaintext of a response's head.
export function parsedResponseHead(plaintext) {
  const [, status, end] = /^([1-9][0-9]{2})( end)?$/.exec(new TextDecoder().decode(plaintext)) ?? [];
  if (status === undefined) throw new TypeError("its head must be a status");
  return { status: Number(status), hasBody: end === undefined };
}
