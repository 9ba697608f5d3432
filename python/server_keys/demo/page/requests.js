// Requests to the demo's server that stay with it.

// As fetch, but a redirect is never followed: it would take what was meant for this server elsewhere.
export async function request(path, options = {}) {
  // Not "error", with which a redirect cannot be told from a server that does not answer.
  const response = await fetch(path, { ...options, redirect: "manual" });
  if (response.type === "opaqueredirect") throw new Error(`${path} was answered with a redirect, which is never followed.`);
  return response;
}
