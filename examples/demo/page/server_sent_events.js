// Server-sent events, as chat completions stream them: "data:" lines, an empty line after each event.

export class EventParser {
  #decoder = new TextDecoder();
  #rest = "";

  // Takes the next bytes, returns the data of the events that they complete.
  feed(bytes) {
    const blocks = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split(/\r?\n\r?\n/);
    this.#rest = blocks.pop();
    return blocks
      .map((block) => block.split(/\r?\n/).filter((line) => line.startsWith("data:")))
      .filter((lines) => lines.length > 0)
      .map((lines) => lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n"));
  }
}
