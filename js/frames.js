// The framing of bodies: four bytes that hold a length, big-endian, then a ciphertext of that length.
import { concat } from "./bytes.js";
import { MissingEndError } from "./errors.js";
import { received } from "./requests.js";

const LENGTH_BYTES = 4;
const MAX_FRAME_BYTES = 16 * 1024 * 1024;
// As much as both ends of server-keys seal as one frame. Every limit that a receiver can set takes it.
const PIECE_BYTES = 64 * 1024;

export function frame(ciphertext) {
  const length = new Uint8Array(LENGTH_BYTES);
  new DataView(length.buffer).setUint32(0, ciphertext.length);
  return concat(length, ciphertext);
}

// Yields the pieces of a body that are sealed as one frame each.
export function* piecesOf(body) {
  for (let offset = 0; offset < body.length; offset += PIECE_BYTES) yield body.subarray(offset, offset + PIECE_BYTES);
}

// Yields the ciphertext of each frame of a ReadableStream as soon as it is complete. Skips frames of length 0.
// shortest: refuses a frame that announces less. isOver: whether anything that follows is an error.
export async function* framesOf(stream, { shortest = 0, isOver = () => false } = {}) {
  if (stream === null) return; // a response without a body, such as a 204
  const reader = stream.getReader();
  let buffered = new Uint8Array();
  try {
    for (;;) {
      const { done, value } = await received(reader.read());
      if (done) break;
      buffered = buffered.length > 0 ? concat(buffered, value) : value;
      for (;;) {
        if (buffered.length > 0 && isOver()) throw new Error("the response goes on after its end");
        if (buffered.length < LENGTH_BYTES) break;
        const length = new DataView(buffered.buffer, buffered.byteOffset).getUint32(0);
        if (length > MAX_FRAME_BYTES) throw new Error(`a frame announces ${length} bytes; ${MAX_FRAME_BYTES} are the limit`);
        if (length < shortest) throw new Error(`a frame announces ${length} bytes; it has ${shortest} at least`);
        if (buffered.length < LENGTH_BYTES + length) break;
        const ciphertext = buffered.slice(LENGTH_BYTES, LENGTH_BYTES + length);
        buffered = buffered.subarray(LENGTH_BYTES + length);
        if (length > 0) yield ciphertext;
      }
    }
    if (buffered.length > 0) throw new MissingEndError("the response ended inside a frame");
  } finally {
    // If the reader left early, this tells the server to send no more.
    await reader.cancel().catch(() => {});
  }
}
