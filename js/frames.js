// EHBP's framing: four bytes that hold a length, big-endian, then a ciphertext of that length.
import { concat } from "./bytes.js";
import { received } from "./requests.js";

const LENGTH_BYTES = 4;
const MAX_FRAME_BYTES = 16 * 1024 * 1024;

export function frame(ciphertext) {
  const length = new Uint8Array(LENGTH_BYTES);
  new DataView(length.buffer).setUint32(0, ciphertext.length);
  return concat(length, ciphertext);
}

// Yields the ciphertext of each frame of a ReadableStream as soon as it is complete. Skips empty frames.
export async function* framesOf(stream) {
  if (stream === null) return; // a response without a body, such as a 204
  const reader = stream.getReader();
  let buffered = new Uint8Array();
  try {
    for (;;) {
      const { done, value } = await received(reader.read());
      if (done) break;
      buffered = buffered.length > 0 ? concat(buffered, value) : value;
      while (buffered.length >= LENGTH_BYTES) {
        const length = new DataView(buffered.buffer, buffered.byteOffset).getUint32(0);
        if (length > MAX_FRAME_BYTES) throw new Error(`a frame announces ${length} bytes; ${MAX_FRAME_BYTES} are the limit`);
        if (buffered.length < LENGTH_BYTES + length) break;
        if (length > 0) yield buffered.slice(LENGTH_BYTES, LENGTH_BYTES + length);
        buffered = buffered.subarray(LENGTH_BYTES + length);
      }
    }
    if (buffered.length > 0) throw new Error("the response ended inside a frame");
  } finally {
    // If the reader left early, this tells the server to send no more.
    await reader.cancel().catch(() => {});
  }
}
