// The processes that serve the demo together, and which of them answered last.
import { child } from "./dom.js";

export class Group {
  #element;
  #summary;
  #processes;
  #shown = "";

  constructor(element) {
    this.#element = element;
    this.#summary = child(element, "span");
    this.#processes = child(element, "span", "processes");
  }

  // Takes an answer of GET /keys.
  update({ processes, answered_by: answeredBy }) {
    this.#element.hidden = processes.length === 0;
    const serving = processes.filter(({ serves }) => serves);
    const sharing = serving.filter(({ shared }) => shared);
    const shown = JSON.stringify([processes, answeredBy]);
    // Only if something differs: a screen reader would read it again.
    if (shown === this.#shown) return;
    this.#shown = shown;
    const alone = serving.find(({ shared }) => !shared);
    const newest = Math.max(...sharing.map(({ epoch }) => epoch));
    const members = Math.max(...sharing.map((process) => process.members));
    this.#summary.textContent = alone
      ? `${sharing.length} of ${serving.length} processes share their keys. Process ${alone.pid} has its own: ${alone.why_not}.`
      : `${sharing.length} processes share these keys. Epoch ${newest}, ${members} members known to the group.`;
    this.#processes.replaceChildren();
    for (const { pid, serves, shared } of processes) {
      const state = serves ? (shared ? "shared" : "alone") : "gone";
      const answered = pid === answeredBy;
      const text = `${pid}${answered ? " answered" : ""}${serves ? "" : " gone"}`;
      child(this.#processes, "span", `process ${state}${answered ? " answered" : ""}`, text);
    }
  }

  // Shows nothing until the next update.
  pause() {
    this.#shown = "";
    this.#element.hidden = true;
  }
}
