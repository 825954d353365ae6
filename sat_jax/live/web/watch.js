// A stream of the server that somebody else sends.
import { K, toTop } from "./engine.js";

const AGAIN = 3000; // Milliseconds until a stream that ended is looked for again.

/** Follows /v1/streams/ID/watch; a stream of the same name takes its place when it ends. */
export class WatchedStream {
  constructor({ id, name }, hear) {
    Object.assign(this, { id, name, hear });
    this.connect();
  }

  connect() {
    this.source?.close();
    this.source = new EventSource(`v1/streams/${encodeURIComponent(this.id)}/watch?k=${K}`);
    this.source.addEventListener("message", ({ data }) => this.take(JSON.parse(data)));
    this.source.addEventListener("error", () => this.lose());
  }

  take(message) {
    if (message.type === "started") {
      // It tells again what was heard before.
      this.hear.clear({ hasSamples: false });
      this.hear.connection("on");
      this.hear.status(`Watching ${message.name}.`);
    } else if (message.type === "scores") {
      this.hear.chunk({ ...message, top: toTop(message.top) });
    } else if (message.type === "event") {
      this.hear.event(message);
    } else if (message.type === "gap") {
      const seconds = (message.end - message.start).toFixed(1);
      this.hear.status(`${seconds} s of sound were lost: ${message.reason}.`, true);
    } else if (message.type === "closed") {
      this.hear.cut();
      this.again(`${this.name} has ended. Waiting for it …`);
    }
  }

  lose() {
    this.hear.connection("wait");
    // A connection that was lost comes back by itself, an answer of 404 does not.
    if (this.source.readyState === EventSource.CLOSED) this.again(`${this.name} is not there. Waiting …`);
    else this.hear.status("The connection was lost. Trying again …", true);
  }

  again(text) {
    this.source.close();
    this.id = this.name; // The next one has another id.
    this.hear.connection("wait");
    this.hear.status(text, true);
    this.timer = setTimeout(() => this.connect(), AGAIN);
  }

  async stop() {
    clearTimeout(this.timer);
    this.source.close();
  }
}
