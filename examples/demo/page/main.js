// Connects the parts of the page: the timeline of keys, the chat, the wire, and the key agreement.
import { Chat } from "./chat.js";
import { Conversation } from "./conversation.js";
import { child } from "./dom.js";
import { durationInWords } from "./durations.js";
import { KeyAgreement } from "./agreement.js";
import { Group } from "./group.js";
import { Timeline } from "./timeline.js";
import { Wire } from "./wire.js";

const LONGEST_POLL_MS = 1000;
// After this time a silent server counts as gone.
const LONGEST_WAIT_MS = 2000;
const SUGGESTIONS = ["Hello, who are you?", "Where do erased keys go?", "What does the river keep?"];

const element = (id) => document.getElementById(id);
const timeline = new Timeline(element("timeline"));
const wire = new Wire(element("wire"));
const group = new Group(element("group"));

async function followKeys() {
  let wait = LONGEST_POLL_MS;
  const askedAt = performance.now();
  try {
    const response = await fetch("/keys", { signal: AbortSignal.timeout(LONGEST_WAIT_MS) });
    if (!response.ok) throw new Error(`GET /keys: ${response.status}`);
    const lives = await response.json();
    timeline.update(lives);
    wire.update(lives, askedAt);
    group.update(lives);
    document.querySelector("[data-refresh]").textContent = durationInWords(lives.refresh_time_s);
    document.querySelector("[data-overlap]").textContent = durationInWords(lives.overlap_s);
    notice("server", null);
    // Ask again right after the server's next event.
    wait = Math.min(LONGEST_POLL_MS, (lives.next_event_in_s ?? 1) * 1000 + 30);
  } catch {
    timeline.pause();
    wire.pause();
    group.pause();
    notice("server", "The server does not answer. If it has stopped, its keys are gone.");
  }
  setTimeout(followKeys, wait);
}

const notices = new Map();

function notice(about, text) {
  if (text) notices.set(about, text);
  else notices.delete(about);
  const whole = [...notices.values()].join(" ");
  if (element("notice").textContent !== whole) element("notice").textContent = whole;
  element("notice").hidden = notices.size === 0;
}

async function checkCryptography() {
  if (!globalThis.crypto?.subtle) {
    return "Browsers offer cryptography on https and on localhost only: open this page as http://localhost, through a tunnel if the server is elsewhere.";
  }
  try {
    await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
    return null;
  } catch {
    return "This browser has no X25519: it takes Chromium 133, Firefox 130, Safari 17 or newer.";
  }
}

function connectChat() {
  const chat = new Chat(new Conversation(element("conversation")), wire, (sealed) => {
    timeline.mark(sealed.publicKey);
    tellProtocol(sealed);
  });
  const [prompt, send, stop, suggestions] = ["prompt", "send", "stop", "suggestions"].map(element);
  let stopping = null;

  async function say(text) {
    if (stopping || !text) return;
    stopping = new AbortController();
    prompt.value = "";
    stop.hidden = false;
    // The pressed button disappears. Without this line the focus would jump to the start of the page.
    if (document.activeElement === send || suggestions.contains(document.activeElement)) stop.focus({ preventScroll: true });
    suggestions.replaceChildren();
    send.hidden = true;
    await chat.say(text, stopping.signal);
    stopping = null;
    send.hidden = false;
    // If the person has moved the focus elsewhere, it stays there.
    if (document.activeElement === stop || document.activeElement === document.body) prompt.focus({ preventScroll: true });
    stop.hidden = true;
  }

  element("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    say(prompt.value.trim());
  });
  stop.addEventListener("click", () => stopping?.abort());
  element("hold").addEventListener("change", (event) => { chat.holdsOnToKey = event.target.checked; });
  for (const text of SUGGESTIONS) {
    const button = child(suggestions, "button", "quiet", text);
    button.type = "button";
    button.addEventListener("click", () => say(text));
  }
}

function tellProtocol({ version }) {
  element("protocol").textContent =
    version === "v1"
      ? "This browser and the server speak version 1 of the wire: HPKE with X-Wing (ML-KEM-768 and X25519 together), HKDF-SHA256 and AES-256-GCM for what you send, AES-256-GCM for what comes back. It seals paths and statuses, too, shows each cut, and is made to outlast quantum computers."
      : "This browser and the server speak plain EHBP: HPKE (X25519, HKDF-SHA256, AES-256-GCM) for what you send, AES-256-GCM for what comes back. Version 1 of the wire takes X-Wing, which one of them lacks.";
}

function connectWire() {
  const shown = (unsealed) => {
    wire.showsPlaintext = unsealed;
    element("wire-title").textContent = unsealed ? "What a proxy would have read" : "What the wire carried";
    element("wire-legend").hidden = unsealed;
    element("unsealed-note").hidden = !unsealed;
  };
  element("unsealed").addEventListener("change", (event) => shown(event.target.checked));
  shown(element("unsealed").checked); // a browser may keep the choice of an earlier visit
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

followKeys();
connectWire();
const missing = await checkCryptography();
if (missing) {
  notice("cryptography", missing);
  for (const id of ["prompt", "send", "agree"]) element(id).disabled = true;
} else {
  connectChat();
  connectExchange();
}
document.documentElement.dataset.ready = "true";
