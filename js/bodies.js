// The bytes of a request's body, and its media type, from what fetch takes as a body.

const TAKEN = "a string, an ArrayBuffer or a view of one, a Blob, a FormData or a URLSearchParams";

// Resolves to { body, mediaType }, each null where there is none. The bytes are the caller's at the time of the call.
export async function extracted(body) {
  if (body === null) return { body, mediaType: null };
  if (typeof body === "string") return { body: new TextEncoder().encode(body), mediaType: null };
  if (ArrayBuffer.isView(body)) return { body: copied(body.buffer, body.byteOffset, body.byteLength), mediaType: null };
  switch (kindOf(body)) {
    case "ArrayBuffer":
    case "SharedArrayBuffer":
      return { body: copied(body), mediaType: null };
    case "Blob":
    case "File":
    case "FormData":
    case "URLSearchParams": {
      const response = new Response(body);
      const mediaType = response.headers.get("Content-Type");
      const bytes = new Uint8Array(await response.arrayBuffer());
      // What this engine does not know as such it makes a string of, such as "[object FormData]".
      if (!isOf(body, bytes, mediaType)) throw refused(body);
      return { body: bytes, mediaType };
    }
    default:
      throw refused(body);
  }
}

function isOf(body, bytes, mediaType) {
  switch (kindOf(body)) {
    case "FormData":
      return mediaType !== null && mediaType.startsWith("multipart/form-data");
    case "URLSearchParams":
      return mediaType !== null && mediaType.startsWith("application/x-www-form-urlencoded");
    default:
      return bytes.length === body.size;
  }
}

function refused(body) {
  return new TypeError(`body must be ${TAKEN}, not ${kindOf(body)}: JSON.stringify makes JSON, and a stream is to be read first`);
}

// Not instanceof: pages and test runners pass objects of other realms.
const kindOf = (value) => Object.prototype.toString.call(value).slice("[object ".length, -1);

function copied(buffer, offset = 0, length = buffer.byteLength) {
  return new Uint8Array(buffer, offset, length).slice();
}
