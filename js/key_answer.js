// The key answer: the X25519 key that every EHBP client reads, and after it entries for those who know more.
import { toHex } from "./bytes.js";
import { KeyConfigurationError } from "./errors.js";
import { PUBLIC_KEY_BYTES } from "./xwing.js";

export const MOST_ANSWER_BYTES = 16 * 1024;

// One key configuration (RFC 9458, section 3): key id 0, X25519, its key, one suite of HKDF-SHA256 and AES-256-GCM.
const FIRST_BYTES = 41;
const FIRST_START = "000020";
const SUITE = "000400010002";
const LENGTH_BYTES = 2;
const XWING = "647a";
const XWING_KEY_AT = 3;
const XWING_ENTRY_BYTES = XWING_KEY_AT + PUBLIC_KEY_BYTES + SUITE.length / 2;

// Returns { x25519, xwing }: a key of 32 bytes, and { keyId, publicKey }, or null if the server knows plain EHBP alone.
export function keysOf(answer) {
  if (answer.length > MOST_ANSWER_BYTES) {
    throw new KeyConfigurationError(`a key answer of ${answer.length} bytes: ${MOST_ANSWER_BYTES} are the limit`);
  }
  const first = toHex(answer.subarray(0, FIRST_BYTES));
  if (first.length < FIRST_BYTES * 2 || !first.startsWith(FIRST_START) || !first.endsWith(SUITE)) {
    throw new KeyConfigurationError(`not a key configuration of X25519, HKDF-SHA256 and AES-256-GCM: ${first.slice(0, 100)}`);
  }
  const found = entriesOf(answer.subarray(FIRST_BYTES)).map(xwingOf).filter((key) => key !== null);
  if (found.length > 1) throw new KeyConfigurationError(`${found.length} X-Wing keys: a key answer has one at most`);
  return { x25519: answer.slice(3, 35), xwing: found[0] ?? null };
}

function entriesOf(bytes) {
  const entries = [];
  for (let at = 0; at < bytes.length; ) {
    const length = (bytes[at] << 8) | (bytes[at + 1] ?? 0);
    const entry = bytes.slice(at + LENGTH_BYTES, at + LENGTH_BYTES + length);
    if (length === 0 || entry.length < length) throw new KeyConfigurationError("a key answer whose last entry is cut off");
    entries.push(entry);
    at += LENGTH_BYTES + length;
  }
  return entries;
}

function xwingOf(entry) {
  const kem = toHex(entry.subarray(1, XWING_KEY_AT));
  const suite = toHex(entry.subarray(XWING_KEY_AT + PUBLIC_KEY_BYTES));
  if (entry.length !== XWING_ENTRY_BYTES || entry[0] === 0 || kem !== XWING || suite !== SUITE) return null;
  return { keyId: entry[0], publicKey: entry.slice(XWING_KEY_AT, XWING_KEY_AT + PUBLIC_KEY_BYTES) };
}
