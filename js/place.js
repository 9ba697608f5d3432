// Where a request is meant to arrive: its path and query in one form, so that both ends can compare them.
// Proxies on the way decode characters that need no escape, and merge slashes. Neither changes what an app sees.
import { toBase64url, utf8 } from "./bytes.js";

export const KEY_PATH = "/.well-known/hpke-keys";

// A longer target stands as its hash, because nginx takes 8 KiB of a header line.
const MOST_TARGET_BYTES = 4096;
const ESCAPES = /(?:%[0-9a-f]{2})+/gi;
const UNRESERVED = /[A-Za-z0-9._~-]/;

// Resolves to the target for which a request to a URL is sealed, given the URL of the key.
export async function sealedTarget(url, keyUrl) {
  const path = below(prefixOf(keyUrl), escaped(merged(url.pathname)));
  const query = url.search.slice(1);
  return shortened(query ? `${path}?${normalisedQuery(query)}` : path);
}

// Returns a path without dot segments and doubled slashes, with escapes only where they are needed.
function normalisedPath(path) {
  const segments = [];
  const all = merged(path).split("/").slice(1);
  for (const segment of all) {
    if (segment === "..") segments.pop();
    else if (segment !== ".") segments.push(segment);
  }
  // A dot segment at the end leaves the slash before it (RFC 3986, section 5.2.4).
  if ([".", ".."].includes(all.at(-1))) segments.push("");
  return escaped(`/${segments.join("/")}`);
}

// Decodes a path, and merges its slashes. The dot segments that a URL still has are sent, so they stay: `..%2F`.
const merged = (path) => `/${unescaped(path)}`.replace(/\/+/g, "/");

// Of what encodeURI leaves, these two are no `pchar` (RFC 3986, section 3.3).
const escaped = (path) => encodeURI(path).replaceAll("?", "%3F").replaceAll("#", "%23");

// In a query `%26` and `&` are different things. Only the escapes that RFC 3986, section 6.2.2, calls equal are made equal.
export function normalisedQuery(query) {
  return query.replace(/%[0-9a-f]{2}/gi, (escape) => {
    const character = String.fromCharCode(Number.parseInt(escape.slice(1), 16));
    return UNRESERVED.test(character) ? character : escape.toUpperCase();
  });
}

function prefixOf(keyUrl) {
  const path = normalisedPath(keyUrl.pathname);
  return path.endsWith(KEY_PATH) ? path.slice(0, -KEY_PATH.length) : "";
}

function below(prefix, path) {
  return path.startsWith(`${prefix}/`) ? path.slice(prefix.length) : path;
}

async function shortened(target) {
  const bytes = utf8(target);
  if (bytes.length <= MOST_TARGET_BYTES) return target;
  return `sha256-${toBase64url(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)))}`;
}

// Decodes all escapes. U+FFFD stands for what is no UTF-8, as in the paths that servers hand to their apps.
function unescaped(path) {
  return path.replace(ESCAPES, (escapes) => {
    const bytes = escapes.slice(1).split("%").map((digits) => Number.parseInt(digits, 16));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
  });
}
