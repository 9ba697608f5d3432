// Requests to the demo's server: they stay with it, and what fails is told in plain words.

// As fetch, but a redirect is never followed: it would take what was meant for this server elsewhere.
export async function request(path, options = {}) {
  // Not "error", with which a redirect cannot be told from a server that does not answer.
  const response = await inWords("The server does not answer.", fetch(path, { ...options, redirect: "manual" }));
  if (response.type === "opaqueredirect") throw new Error(`${path} was answered with a redirect, which is never followed.`);
  return response;
}

// Waits for a part of a response's body, or for all of it.
export function received(reading) {
  return inWords("The connection broke while the server was answering.", reading);
}

async function inWords(words, promise) {
  try {
    return await promise;
  } catch (error) {
    // What fetch and its streams reject with when the network fails; each browser has words of its own for it.
    if (error instanceof TypeError) throw new Error(words, { cause: error });
    throw error;
  }
}
