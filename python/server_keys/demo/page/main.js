// Connects the parts of the page: the keys' lives from the server, the timeline, the key agreement.
import { KeyAgreement } from "./exchange.js";
import { Timeline } from "./timeline.js";

const LONGEST_POLL_MS = 1000;

const element = (id) => document.getElementById(id);
const timeline = new Timeline(element("timeline"));

async function followKeys() {
  let wait = LONGEST_POLL_MS;
  try {
    const response = await fetch("/keys");
    if (!response.ok) throw new Error(`GET /keys: ${response.status}`);
    const lives = await response.json();
    timeline.update(lives);
    document.querySelector("[data-refresh]").textContent = `${lives.refresh_time_s} seconds`;
    document.querySelector("[data-overlap]").textContent = `${lives.overlap_s} seconds`;
    element("offline").hidden = true;
    // Soon after the server's next event, so that it is seen when it happens.
    wait = Math.min(LONGEST_POLL_MS, (lives.next_event_in_s ?? 1) * 1000 + 30);
  } catch {
    element("offline").hidden = false;
  }
  setTimeout(followKeys, wait);
}

function connectExchange() {
  const agreement = new KeyAgreement();
  const show = (id, text) => { element(id).textContent = text ?? "-"; };

  async function run(action) {
    element("agree").disabled = element("again").disabled = true;
    let verdict;
    try {
      const result = await action();
      show("proof-server", result.serverKey);
      show("proof-mine", result.myKey);
      show("proof-sent", result.sentProof);
      show("proof-computed", result.computedProof);
      verdict = result.refusal
        ? ["bad", `Refused: ${result.refusal}`]
        : result.sentProof === result.computedProof
          ? ["good", "Both sides hold the same secret."]
          : ["bad", "The proofs differ: somebody in between changed a key."];
    } catch (error) {
      verdict = ["bad", error.message];
    }
    element("proof-verdict").className = verdict[0];
    show("proof-verdict", verdict[1]);
    element("proof").hidden = false;
    element("agree").disabled = false;
    element("again").disabled = !agreement.serverKey;
  }

  element("agree").addEventListener("click", () => run(() => agreement.withCurrentKey()));
  element("again").addEventListener("click", () => run(() => agreement.withSameKey()));
}

connectExchange();
followKeys();
