// X-Wing (draft-connolly-cfrg-xwing-kem): ML-KEM-768 and X25519 together, by WebCrypto alone.
// Chromium has it whole, as MLKEM768-X25519. Node 24.7 and newer have its parts.
import { concat, utf8 } from "./bytes.js";

export const PUBLIC_KEY_BYTES = 1216;
export const ENCAPSULATED_KEY_BYTES = 1120;

const ID = 0x647a;
const NAME = "X-Wing";
const HYBRID = "MLKEM768-X25519";
const ML_KEM = "ML-KEM-768";
const ML_KEM_KEY_BYTES = 1184;
const LABEL = utf8("\\.//^\\");

let found = null;

// Resolves to this engine's X-Wing, or to null if it has none.
export function xwing() {
  found ??= find();
  return found;
}

async function find() {
  if (await encapsulatesWith(HYBRID)) return hybrid;
  return (await encapsulatesWith(ML_KEM)) && (await hasSha3()) ? combined : null;
}

async function encapsulatesWith(algorithm) {
  if (typeof globalThis.crypto?.subtle?.encapsulateBits !== "function") return false;
  return isSupported(crypto.subtle.generateKey(algorithm, false, ["encapsulateBits", "decapsulateBits"]));
}

const hasSha3 = () => isSupported(crypto.subtle.digest("SHA3-256", new Uint8Array()));

async function isSupported(attempt) {
  try {
    await attempt;
    return true;
  } catch (error) {
    if (error.name === "NotSupportedError") return false;
    throw error;
  }
}

// The engine's own X-Wing. It refuses an X25519 half of small order.
const hybrid = {
  id: ID,
  name: NAME,
  async encapsulate(publicKey) {
    const { ciphertext, sharedKey } = await encapsulated(HYBRID, publicKey);
    return { encapsulatedKey: ciphertext, sharedSecret: sharedKey };
  },
};

// X-Wing of its parts: section 5.3 of the draft.
const combined = {
  id: ID,
  name: NAME,
  async encapsulate(publicKey) {
    const x25519Key = publicKey.slice(ML_KEM_KEY_BYTES);
    const { ciphertext, sharedKey } = await encapsulated(ML_KEM, publicKey.slice(0, ML_KEM_KEY_BYTES));
    const recipient = await crypto.subtle.importKey("raw", x25519Key, { name: "X25519" }, false, []);
    const own = await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
    const ownKey = new Uint8Array(await crypto.subtle.exportKey("raw", own.publicKey));
    // WebCrypto itself refuses the all-zero secret of a point of small order.
    const dh = new Uint8Array(await crypto.subtle.deriveBits({ name: "X25519", public: recipient }, own.privateKey, 256));
    const secret = await crypto.subtle.digest("SHA3-256", concat(sharedKey, dh, ownKey, x25519Key, LABEL));
    return { encapsulatedKey: concat(ciphertext, ownKey), sharedSecret: new Uint8Array(secret) };
  },
};

async function encapsulated(algorithm, publicKey) {
  const key = await crypto.subtle.importKey("raw-public", publicKey, algorithm, false, ["encapsulateBits"]);
  const { ciphertext, sharedKey } = await crypto.subtle.encapsulateBits(algorithm, key);
  return { ciphertext: new Uint8Array(ciphertext), sharedKey: new Uint8Array(sharedKey) };
}
