// The pane with the conversation: messages, and answers that grow word by word.
import { child, followEnd, shortened } from "./dom.js";

export class Conversation {
  #pane;

  constructor(pane) {
    this.#pane = pane;
  }

  ask(text) {
    followEnd(this.#pane, () => child(this.#pane, "p", "message mine", text));
    this.#pane.scrollTop = this.#pane.scrollHeight;
  }

  answer() {
    let answer;
    followEnd(this.#pane, () => {
      answer = new Answer(this.#pane);
    });
    return answer;
  }
}

class Answer {
  #pane;
  #message;
  #pieces = new Map();

  text = "";

  // Called with a frame's number when the pointer enters (true) or leaves (false) a piece that the frame brought.
  onPoint = () => {};

  constructor(pane) {
    this.#pane = pane;
    this.#message = child(pane, "p", "message theirs waiting");
    // A screen reader waits for the whole answer.
    pane.setAttribute("aria-busy", "true");
  }

  add(text, frameIndex) {
    this.text += text;
    followEnd(this.#pane, () => {
      this.#message.classList.remove("waiting");
      const piece = child(this.#message, "span", "piece", text);
      this.#pieces.set(frameIndex, [...(this.#pieces.get(frameIndex) ?? []), piece]);
      piece.addEventListener("pointerenter", () => this.onPoint(frameIndex, true));
      piece.addEventListener("pointerleave", () => this.onPoint(frameIndex, false));
    });
  }

  // Says below the answer why the message was sent twice. In the wire's pane that soon scrolls away.
  tellRefusal(refusedKey, newKey) {
    followEnd(this.#pane, () => {
      const text = `The server refused key ${shortened(refusedKey)}, which is erased. The message went again, sealed to ${shortened(newKey)}`;
      child(this.#pane, "p", "refusal", text);
    });
  }

  highlight(frameIndex, on) {
    for (const piece of this.#pieces.get(frameIndex) ?? []) piece.classList.toggle("lit", on);
  }

  end(note, failed = false) {
    this.#pane.setAttribute("aria-busy", "false");
    followEnd(this.#pane, () => {
      this.#message.classList.remove("waiting");
      if (this.text === "") this.#message.remove();
      child(this.#pane, "p", `note${failed ? " bad" : ""}`, note);
    });
  }
}
