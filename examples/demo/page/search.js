// Looks for the words of a chat in the bytes that travelled.
import { utf8 } from "./js/bytes.js";

// Shorter words appear in ciphertext by chance: one of four letters in one of some thousand answers.
const SHORTEST_WORD_BYTES = 5;

export function longerWords(text) {
  return [...new Set(text.match(/[\p{L}\p{N}]+/gu) ?? [])].filter((word) => utf8(word).length >= SHORTEST_WORD_BYTES);
}

// Returns those of the words that the bytes contain in UTF-8, in any case.
export function wordsFoundIn(bytes, words) {
  const text = latin1(bytes).toLowerCase();
  return [...new Set(words)].filter((word) => text.includes(latin1(utf8(word)).toLowerCase()));
}

// One character for each byte, so that a string search finds bytes.
function latin1(bytes) {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}
