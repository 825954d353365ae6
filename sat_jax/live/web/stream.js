// The microphone's stream to the server, which goes on after a lost connection.
import { ask, K, toTop } from "./engine.js";

const FRAME = 0.1; // Seconds in a message.
const KEPT = 60; // Seconds of sound kept for a server that is away.
const MOST_BUFFERED = 1 << 18; // Bytes on the way.
const CLOSING = 5000; // Milliseconds that the last scores may take.
const WAITS = [250, 500, 1000, 2000, 4000, 8000, 15000]; // Milliseconds between attempts.
const [REFUSED, OVERLOADED, TAKEN, UNKNOWN] = [1008, 1013, 4003, 4004];
const FATAL = new Set([1003, 1009, 4000, REFUSED, TAKEN]);

/** Sends samples over /v1/stream, and tells `hear` what comes back. */
export class LiveStream {
  /** Ids of the streams that this page sends. */
  static own = new Set();

  constructor(rate, hear) {
    Object.assign(this, { rate, hear });
    this.frame = Math.round(rate * FRAME);
    this.filling = new Int16Array(this.frame);
    this.filled = 0;
    this.blocks = []; // {at, data}: what the server may still want.
    this.made = this.sent = 0; // Samples in blocks so far, and up to where they were sent.
    this.zero = 0; // Sample with which the server's stream begins.
    this.heard = 0; // Seconds of the server's stream up to which scores came.
    this.token = "";
    this.attempts = 0;
    this.finished = new Promise((resolve) => (this.finish = resolve));
    // A page that is left does not come back for its stream.
    this.leave = () => this.isReady && this.tell({ type: "finish" });
    addEventListener("pagehide", this.leave);
    this.connect();
  }

  push(samples) {
    for (const sample of samples) {
      const scaled = Math.round(sample * 32768);
      this.filling[this.filled++] = Math.max(-32768, Math.min(32767, scaled));
      if (this.filled === this.frame) this.flush();
    }
  }

  flush() {
    if (!this.filled) return;
    this.blocks.push({ at: this.made, data: this.filling.slice(0, this.filled) });
    this.made += this.filled;
    this.filled = 0;
    while (this.made - this.blocks[0].at > KEPT * this.rate) this.blocks.shift();
    this.send();
  }

  send() {
    if (!this.isReady) return;
    for (const { at, data } of this.blocks) {
      if (at + data.length <= this.sent) continue;
      if (this.socket.bufferedAmount > MOST_BUFFERED && !this.isStopping) return;
      this.socket.send(data.subarray(Math.max(0, this.sent - at)));
      this.sent = at + data.length;
    }
  }

  connect() {
    this.isReady = false;
    const address = new URL("v1/stream", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    this.socket.addEventListener("open", () => this.tell(this.start()));
    this.socket.addEventListener("message", ({ data }) => this.take(JSON.parse(data)));
    this.socket.addEventListener("close", ({ code }) => this.lose(code));
  }

  tell(message) {
    this.socket.send(JSON.stringify(message));
  }

  start() {
    const start = { type: "start", version: 1, rate: this.rate, channels: 1, format: "s16le" };
    const want = { scores: "top", k: K, events: true, level: true };
    Object.assign(start, { name: "browser", want });
    if (!this.token) return start;
    return { ...start, resume: this.token, position: Math.round(this.heard * this.rate) };
  }

  take(message) {
    const shift = this.zero / this.rate;
    if (message.type === "started") this.begin(message);
    else if (message.type === "scores") {
      const { start, end, lag } = message;
      if (end <= this.heard) return; // Told again after a lost connection.
      this.heard = end;
      const behind = Math.max(lag, (this.made - this.zero) / this.rate - end);
      const times = { start: start + shift, end: end + shift, lag: behind };
      this.hear.chunk({ ...times, top: toTop(message.top) });
    } else if (message.type === "event") {
      const { start, end } = message;
      this.hear.event({ ...message, start: start + shift, end: end === undefined ? end : end + shift });
    } else if (message.type === "ack") {
      const position = this.zero + message.position;
      while (this.blocks.length && this.blocks[0].at + this.blocks[0].data.length <= position) {
        this.blocks.shift();
      }
    } else if (message.type === "gap") {
      const seconds = (message.samples / this.rate).toFixed(1);
      this.hear.status(`${seconds} s of sound were lost: ${message.reason}.`, true);
    } else if (message.type === "error") {
      this.problem = message.message;
      this.hear.status(message.message, true);
    }
  }

  begin({ session, resume, position }) {
    const first = this.blocks[0]?.at ?? this.made;
    if (!this.token) {
      this.zero = this.sent = first;
    } else if (this.zero + position < first) {
      // More was lost than is kept: the server waits for sound that is gone.
      this.renew();
      return;
    } else {
      this.sent = this.zero + position;
    }
    const wasAway = this.away && ((performance.now() - this.away) / 1000).toFixed(1);
    if (wasAway) {
      const how = this.token ? "Nothing was lost." : "A new stream began.";
      this.hear.status(`Listening again after ${wasAway} s. ${how}`);
    }
    Object.assign(this, { token: resume, isReady: true, attempts: 0, away: 0, problem: "" });
    LiveStream.own.add(session);
    this.hear.connection("on");
    this.send();
    if (this.isStopping) this.tell({ type: "finish" });
  }

  /** Begins a new stream with what is kept. */
  renew() {
    this.token = "";
    this.heard = 0;
    this.hear.cut();
    if (this.socket.readyState === WebSocket.OPEN) {
      this.tell({ type: "abort" });
      this.isRenewed = true;
    }
  }

  lose(code) {
    this.isReady = false;
    if (code === 1000 && !this.isRenewed) {
      this.end("The server ended the stream.");
      return;
    }
    this.isRenewed = false;
    if (FATAL.has(code)) {
      if (code === REFUSED) location.reload();
      const refused = this.problem || `The server refused the stream (${code}).`;
      this.end(code === TAKEN ? "Another page has taken this stream." : refused);
      return;
    }
    if (this.isStopping) {
      this.end();
      return;
    }
    if (code === UNKNOWN) this.renew();
    this.away ||= performance.now();
    this.hear.connection("wait");
    this.retry(code);
  }

  async retry(code) {
    const wait = WAITS[Math.min(this.attempts++, WAITS.length - 1)];
    const text = code === OVERLOADED ? this.problem : await this.reason();
    if (this.isStopping) return;
    this.hear.status(`${text} Trying again …`, true);
    this.timer = setTimeout(() => this.connect(), wait);
  }

  /** Browsers do not say why a connection was refused. */
  async reason() {
    try {
      const { used, of } = (await ask("v1/model")).capacity;
      if (used >= of && !this.token) return `All ${of} streams of the server are taken.`;
    } catch {
      return "The server does not answer. Sound is kept for a minute.";
    }
    return "The connection was lost.";
  }

  end(text = "") {
    clearTimeout(this.timer);
    removeEventListener("pagehide", this.leave);
    this.isReady = false;
    this.hear.cut();
    this.finish();
    const isAsked = this.isStopping;
    this.isStopping = true;
    if (!isAsked && text) this.hear.ended(text);
  }

  /** Ends the stream after its last scores. */
  async stop() {
    if (this.isStopping) return this.finished;
    this.isStopping = true;
    this.flush();
    if (this.isReady) this.tell({ type: "finish" });
    else this.end();
    const patience = setTimeout(() => this.socket.close(), CLOSING);
    await this.finished;
    clearTimeout(patience);
    this.socket.close();
  }
}
