// Requests that stay with one server, and network failures in plain words.
import { concat } from "./bytes.js";

// Works like fetch, but never follows a redirect, which would take the request to another server.
export async function request(url, options = {}) {
  // Not `redirect: "error"`: that looks like a server that does not answer.
  const response = await inPlainWords("The server does not answer.", fetch(url, { ...options, redirect: "manual" }));
  // Browsers hide a redirect behind an opaque response; Node shows it.
  if (response.type === "opaqueredirect" || isRedirect(response)) {
    await response.body?.cancel().catch(() => {});
    throw new Error(`${url} was answered with a redirect, which is never followed.`);
  }
  return response;
}

// Waits for a part of a response's body, or for all of it.
export function received(reading) {
  return inPlainWords("The connection broke while the server was answering.", reading);
}

// Resolves to a response's body, or to null if it has more than so many bytes. The rest is not read then.
export async function receivedAtMost(response, bytes) {
  const reader = response.body?.getReader();
  let whole = new Uint8Array();
  while (reader) {
    const { done, value } = await received(reader.read());
    if (done) break;
    whole = concat(whole, value);
    if (whole.length > bytes) {
      await reader.cancel().catch(() => {});
      return null;
    }
  }
  return whole;
}

function isRedirect({ status, headers }) {
  return status >= 300 && status < 400 && headers.has("Location");
}

async function inPlainWords(words, promise) {
  try {
    return await promise;
  } catch (error) {
    // fetch and its streams reject with a TypeError when the network fails. Each browser words it differently.
    if (error instanceof TypeError || error?.name === "TimeoutError") throw new Error(words, { cause: error });
    throw error;
  }
}
