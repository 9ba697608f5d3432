// Whose keys a key answer publishes: the check of its last entry, by which a server's identity signs all bytes before it.
import { concat, fromBase64url, toHex, utf8 } from "./bytes.js";
import { KeyConfigurationError, KeyRejectedError } from "./errors.js";
import { FIRST_BYTES, LENGTH_BYTES, entriesOf } from "./key_answer.js";

const IDENTITY = /^ed25519:([A-Za-z0-9_-]{43})$/;
const LABEL = utf8("server-keys key configuration v1\0");
// No key id and no KEM, then Ed25519.
const KIND = "000000";
const ED25519 = 1;
const [HASH_AT, CREATED_AT, EXPIRES_AT, SIGNATURE_AT, ENTRY_BYTES] = [4, 12, 20, 28, 92];
const CLOCK_TOLERANCE_S = 60;

// The identities of which a client accepts keys: one, or several while one replaces another.
export class Identities {
  #publicKeys;

  // texts: what `server-keys identity show` prints, or an array of such.
  constructor(texts) {
    this.#publicKeys = new Map([texts].flat().map((text) => [text, publicKeyOf(text)]));
    if (this.#publicKeys.size === 0) throw new TypeError("identity is an empty array, so no server could have it: leave it out");
  }

  // Resolves to { identity, seconds }: which one has signed a key answer, and for how long its signature still holds.
  // now: seconds since 1970.
  async check(answer, now = Date.now() / 1000) {
    const entry = signatureEntryOf(answer);
    const [identity, publicKey] = await this.#named(toHex(entry.subarray(HASH_AT, CREATED_AT)));
    const signed = answer.subarray(0, answer.length - entry.length - LENGTH_BYTES);
    const message = concat(LABEL, entry.subarray(CREATED_AT, SIGNATURE_AT), signed);
    if (!(await isSignature(publicKey, message, entry.subarray(SIGNATURE_AT)))) throw refused(`its signature by ${identity} is wrong`);
    const times = new DataView(entry.buffer, entry.byteOffset);
    const [created, expires] = [CREATED_AT, EXPIRES_AT].map((at) => Number(times.getBigUint64(at)));
    const until = `from ${shown(created)} to ${shown(expires)}, and here it is ${shown(now)}`;
    if (expires < created || now > expires + CLOCK_TOLERANCE_S) throw refused(`its signature has expired: it holds ${until}`);
    if (now < created - CLOCK_TOLERANCE_S) throw refused(`its signature does not hold yet: it holds ${until}`);
    return { identity, seconds: expires + CLOCK_TOLERANCE_S - now };
  }

  async #named(hash) {
    for (const [text, publicKey] of this.#publicKeys) {
      if (toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", publicKey)).subarray(0, 8)) === hash) return [text, publicKey];
    }
    throw refused(`another identity signed it, not ${[...this.#publicKeys.keys()].join(" or ")}`);
  }
}

function publicKeyOf(text) {
  const match = IDENTITY.exec(text);
  if (!match) throw new TypeError(`identity must be "ed25519:" and 43 characters, not ${JSON.stringify(text)}`);
  return fromBase64url(match[1]);
}

async function isSignature(publicKey, message, signature) {
  const key = await crypto.subtle.importKey("raw", publicKey, { name: "Ed25519" }, false, ["verify"]).catch((cause) => {
    throw new KeyConfigurationError("this engine has no Ed25519, or the identity is no key of it", { cause });
  });
  return crypto.subtle.verify({ name: "Ed25519" }, key, signature, message);
}

function signatureEntryOf(answer) {
  const entries = entriesOf(answer.subarray(FIRST_BYTES));
  const found = entries.filter((entry) => toHex(entry.subarray(0, 3)) === KIND);
  if (found.length === 0) throw refused("it is not signed");
  if (found.length > 1) throw refused(`it has ${found.length} signatures`);
  const [entry] = found;
  if (entries.at(-1) !== entry) throw refused("it goes on after its signature");
  if (entry[3] !== ED25519) throw refused(`its signature is of algorithm ${entry[3]}`);
  if (entry.length !== ENTRY_BYTES) throw refused(`its signature has ${entry.length} bytes`);
  return entry;
}

const refused = (why) => new KeyRejectedError(`The server's key answer is refused: ${why}. Nothing was sealed to it`);

function shown(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? `${seconds} s after 1970` : date.toISOString();
}
