// The server's keys on a moving time axis: one lane for each key, the newest on top.

import { child, shortened } from "./dom.js";
import { duration, timeLeft, unitOf } from "./durations.js";

// How much of the axis lies before and after "now", in refresh times. A key lives for two at most.
const PAST_PERIODS = 3.5;
const AHEAD_PERIODS = 2;
const ROWS = 5;
const STILL_FRAME_MS = 500;

export class Timeline {
  #list;
  #axis;
  #lanes = new Map();
  #lives = null;
  #readAt = 0;
  #paused = false;
  #ticksOf = null;

  constructor(list) {
    this.#list = list;
    this.#axis = child(list, "li", "axis");
    this.#axis.setAttribute("aria-hidden", "true");
    const still = matchMedia("(prefers-reduced-motion: reduce)");
    const frame = () => {
      if (!this.#paused) this.#draw();
      if (still.matches) setTimeout(frame, STILL_FRAME_MS);
      else requestAnimationFrame(frame);
    };
    frame();
  }

  // Takes an answer of GET /keys.
  update(lives) {
    this.#lives = lives;
    this.#readAt = performance.now();
    this.#pause(false);
    // Animations must end before the next key comes.
    this.#list.style.setProperty("--refresh-time", `${lives.refresh_time_s}s`);
    const known = new Set();
    // The oldest first, because each new lane goes above the others, also for screen readers.
    for (const [row, life] of [...lives.keys.entries()].reverse()) {
      known.add(life.public_key);
      const lane = this.#lanes.get(life.public_key) ?? this.#addLane(life, row);
      lane.life = life;
      lane.element.style.transform = `translateY(${row * 100}%)`;
      lane.element.style.zIndex = lives.keys.length - row;
      lane.element.style.opacity = row < ROWS ? "1" : "0";
      lane.element.style.visibility = row < ROWS ? "visible" : "hidden";
    }
    for (const [publicKey, lane] of this.#lanes) {
      if (known.has(publicKey)) continue;
      lane.element.remove();
      this.#lanes.delete(publicKey);
    }
    this.#drawTicks();
  }

  // Marks the present moment on the lane of a key.
  mark(publicKey) {
    for (const { element, life, marks } of this.#lanes.values()) {
      if (life.public_key !== publicKey) continue;
      const dot = child(element.querySelector(".lane-track"), "span", "mark");
      dot.hidden = true; // until the next frame positions it
      dot.title = "one of your messages was sealed to this key";
      marks.push({ dot, at: performance.now() });
    }
  }

  // Shows the keys as last heard of, with their state unknown, until the next update.
  pause() {
    this.#pause(true);
    this.#draw();
  }

  #pause(paused) {
    this.#paused = paused;
    this.#list.classList.toggle("paused", paused);
  }

  #addLane(life, row) {
    const element = child(this.#list, "li", "lane");
    this.#axis.after(element);
    // A new lane is in full view at once, so that the page always shows a current key. The other lanes slide below it.
    element.style.transform = `translateY(${row * 100}%)`;
    element.style.opacity = row < ROWS ? "1" : "0";
    const label = child(element, "span", "lane-label");
    child(label, "code").textContent = shortened(life.public_key);
    label.title = life.public_key;
    const state = child(label, "span");
    const track = child(element, "span", "lane-track");
    const segments = ["current", "overlap", "current ahead", "overlap ahead"].map((kind) => child(track, "span", `segment ${kind}`));
    element.getBoundingClientRect(); // makes the transition start here
    const lane = { element, state, segments, life, marks: [], phase: null, text: "" };
    this.#lanes.set(life.public_key, lane);
    return lane;
  }

  #window() {
    const { refresh_time_s: period, overlap_s: overlap } = this.#lives;
    const past = PAST_PERIODS * period;
    return { period, overlap, past, whole: past + AHEAD_PERIODS * period };
  }

  #drawTicks() {
    const { period } = this.#window();
    // A restarted server may have another refresh time.
    if (period === this.#ticksOf) return;
    this.#ticksOf = period;
    this.#axis.replaceChildren();
    for (let number = -Math.floor(PAST_PERIODS); number < AHEAD_PERIODS; number++) {
      const tick = child(this.#axis, "span", number === 0 ? "now" : number > 0 ? "tick ahead" : "tick");
      tick.style.left = `${((PAST_PERIODS + number) / (PAST_PERIODS + AHEAD_PERIODS)) * 100}%`;
      tick.dataset.at = `${number > 0 ? "+" : "−"}${duration(Math.abs(number) * period, unitOf(period))}`;
    }
  }

  #draw() {
    if (this.#lives === null) return;
    const { period, overlap, past, whole } = this.#window();
    const now = this.#paused ? this.#readAt : performance.now();
    const sinceRead = (now - this.#readAt) / 1000;
    for (const lane of this.#lanes.values()) {
      const { element, state, segments, life, marks } = lane;
      // Seconds relative to now, on the axis.
      const made = -life.made_s_ago - sinceRead;
      const replaced = life.replaced_s_ago === null ? null : -life.replaced_s_ago - sinceRead;
      const erased = life.erased_s_ago === null ? null : -life.erased_s_ago - sinceRead;
      const replacedOrDue = replaced ?? Math.max(made + period, 0);
      const erasedOrDue = erased ?? Math.max(replacedOrDue + overlap, 0);
      const published = life.is_coming ? "coming" : "current";
      const alive = this.#paused ? "unknown" : replaced !== null ? "overlap" : published;
      const phase = erased !== null ? "erased" : alive;
      // An end is animated only if the page saw the key before.
      const seen = lane.phase === "current" || lane.phase === "overlap";
      if (phase !== lane.phase) element.className = `lane ${phase}${seen && phase === "erased" ? " wiped" : ""}`;
      lane.phase = phase;
      const text = {
        coming: `published in ${timeLeft(made)}`,
        current: `replaced in ${timeLeft(replacedOrDue)}`,
        overlap: `erased in ${timeLeft(erasedOrDue)}`,
        erased: "erased",
        unknown: "state unknown",
      }[phase];
      // Only if the text differs: a screen reader takes each assignment for a change.
      if (text !== lane.text) state.textContent = lane.text = text;
      const spans = [
        [made, Math.min(replacedOrDue, 0)],
        [replacedOrDue, Math.min(erasedOrDue, 0)],
        [Math.max(made, 0), replacedOrDue],
        [Math.max(replacedOrDue, 0), erasedOrDue],
      ];
      segments.forEach((segment, i) => {
        const [from, to] = spans[i];
        const left = Math.max(from + past, 0) / whole;
        const right = Math.max(to + past, 0) / whole;
        segment.hidden = right <= left;
        segment.style.left = `${left * 100}%`;
        segment.style.width = `${(right - left) * 100}%`;
      });
      for (const { dot, at } of marks) {
        const left = (past - (now - at) / 1000) / whole;
        dot.hidden = left < 0;
        dot.style.left = `${left * 100}%`;
      }
    }
  }
}
