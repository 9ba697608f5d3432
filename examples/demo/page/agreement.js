// A key agreement with the server (X25519, RFC 7748), and a proof that both sides hold the same secret.
import { concat, fromHex, toHex, utf8 } from "./js/bytes.js";
import { received, request } from "./js/requests.js";

const PROOF_LABEL = utf8("server-keys demo");

export class KeyAgreement {
  serverKey = null;

  async withCurrentKey() {
    const response = await request("/key");
    if (!response.ok) throw new Error(`GET /key was answered ${response.status}`);
    this.serverKey = (await received(response.json())).public_key;
    return this.withSameKey();
  }

  async withSameKey() {
    if (!globalThis.crypto?.subtle) {
      throw new Error("This browser offers cryptography on https and on localhost only: open the page under one of them.");
    }
    const mine = await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
    const myKey = new Uint8Array(await crypto.subtle.exportKey("raw", mine.publicKey));
    const response = await request("/exchange", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ server_public_key: this.serverKey, public_key: toHex(myKey) }),
    });
    // Any other status comes from elsewhere, and its body may be anything.
    if (![200, 409, 422].includes(response.status)) throw new Error(`POST /exchange was answered ${response.status}`);
    const answer = await received(response.json());
    const result = { serverKey: this.serverKey, myKey: toHex(myKey) };
    if (!response.ok) return { ...result, refusal: answer.detail };
    const computed = await proofOfAgreement(mine.privateKey, fromHex(this.serverKey), myKey);
    return { ...result, sentProof: answer.proof, computedProof: toHex(computed) };
  }
}

// HKDF-SHA256 of the shared secret: no salt, info = label ‖ server's key ‖ own key.
async function proofOfAgreement(privateKey, serverKey, myKey) {
  const peer = await crypto.subtle.importKey("raw", serverKey, { name: "X25519" }, false, []);
  const secret = await crypto.subtle.deriveBits({ name: "X25519", public: peer }, privateKey, 256);
  const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const info = concat(PROOF_LABEL, serverKey, myKey);
  return new Uint8Array(await crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info }, key, 256));
}
