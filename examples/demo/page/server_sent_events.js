// Server-sent events as chat completions use them: "data:" lines, and an empty line after each event.

export class EventParser {
  #decoder = new TextDecoder();
  #rest = "";

  // Takes the next bytes and returns the data of the events that are complete now.
  feed(bytes) {
    const blocks = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split(/\r?\n\r?\n/);
    this.#rest = blocks.pop();
    return blocks
      .map((block) => block.split(/\r?\n/).filter((line) => line.startsWith("data:")))
      .filter((lines) => lines.length > 0)
      .map((lines) => lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n"));
  }
}
