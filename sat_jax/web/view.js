// What a person sees. Knows classes, chunks and samples, but not where they come from.
import { Bars } from "./bars.js";
import { byId, clock } from "./dom.js";
import { findEvents, usualOff } from "./events.js";
import { HIGHEST, Spectrogram } from "./spectrogram.js";
import { Timeline } from "./timeline.js";

const TOP = 10; // Classes shown.
const KEPT = 3600; // Seconds of scores for thresholds that are tried.
const CLIP_LIGHT = 1500; // Milliseconds.
const UNKNOWN = 0.5; // Where the mark of a class that is not watched waits.

export class View {
  /** @param {Map<string, {on: number, off: number}>} watched thresholds by class or group */
  constructor(watched) {
    this.watched = watched;
    this.tries = new Map();
    this.spectrogram = new Spectrogram(byId("spectrogram"));
    this.timeline = new Timeline(byId("timeline"), byId("log"));
    this.bars = new Bars(byId("bars"), (label) => this.rule(label), (label, on) => this.try(label, on));
    byId("band").textContent = `to ${HIGHEST / 1000} kHz`;
    byId("copy").addEventListener("click", () => this.copy());
    byId("forget").addEventListener("click", () => {
      this.tries.clear();
      this.refresh();
    });
    this.clear();
  }

  /**
   * Forgets what was heard.
   * @param {{whole?: number, hasSamples?: boolean}} about length of a file in seconds; whether
   *   samples will come, so that there is a spectrogram
   */
  clear({ whole = 0, hasSamples = true } = {}) {
    Object.assign(this, { whole, end: 0, chunks: [], events: new Map(), most: new Map() });
    byId("now").firstChild.textContent = whole ? "In this file " : "Now ";
    byId("seen").hidden = !hasSamples;
    ["time", "lag", "decibels"].forEach((id) => (byId(id).textContent = ""));
    byId("how").textContent = "The most probable classes appear here.";
    this.spectrogram.clear();
    this.bars.clear();
    this.level(-60);
    this.clipped = -Infinity;
    byId("clip").classList.remove("on");
    this.refresh();
  }

  status(text, isProblem = false) {
    byId("status").textContent = text;
    byId("status").classList.toggle("problem", isProblem);
  }

  /** @param {"on"|"wait"|"off"} state */
  connection(state) {
    const words = { on: "connected", wait: "reconnecting", off: "idle" };
    byId("light").dataset.state = state;
    byId("light").lastElementChild.textContent = words[state];
  }

  /** Shows level and spectrogram of new samples at `rate`. */
  samples(block, rate) {
    const peak = block.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const power = block.reduce((sum, value) => sum + value * value, 0) / Math.max(1, block.length);
    this.level(10 * Math.log10(power + 1e-12));
    if (peak >= 0.999) this.clipped = performance.now();
    byId("clip").classList.toggle("on", performance.now() - this.clipped < CLIP_LIGHT);
    this.spectrogram.setRate(rate);
    this.spectrogram.push(block);
  }

  /** Shows a level in dB of full scale. */
  level(decibels) {
    const shown = Math.round(Math.min(0, Math.max(-60, decibels)));
    byId("level").style.width = `${((shown + 60) / 60) * 100}%`;
    byId("level").parentElement.setAttribute("aria-valuenow", shown);
    byId("decibels").textContent = shown > -60 ? `${shown} dB` : "";
  }

  /**
   * Shows a chunk.
   * @param {{start: number, end: number, lag?: number, level?: number,
   *   top: {label: string, prob: number}[]}} chunk `top` has more than is shown: a threshold may be
   *   tried for a class that was shown before
   */
  chunk({ start, end, lag, level, top }) {
    byId("time").textContent = `${clock(this.whole ? 0 : start)} to ${clock(end)}`;
    byId("lag").textContent = lag === undefined ? "" : `${lag.toFixed(2)} s lag`;
    if (level !== undefined && !this.whole) this.level(level);
    const probs = new Map(top.map(({ label, prob }) => [label, prob]));
    this.chunks.push({ start, end, probs });
    while (this.chunks[0].end < end - KEPT) this.chunks.shift();
    this.end = Math.max(this.end, end);
    for (const event of this.events.values()) {
      // Groups are not among the classes: one that is open counts as heard.
      const isHeard = event.isGroup || (probs.get(event.label) ?? 0) >= this.own(event.label).off;
      if (event.isOpen && isHeard) event.end = Math.max(event.end, end);
    }
    this.bars.show((this.whole ? this.highest(top) : top).slice(0, TOP));
    byId("how").textContent = "Move a mark to try another threshold. It changes this page only.";
    this.draw();
  }

  /** The highest scores in a file so far. */
  highest(top) {
    for (const { label, prob } of top) {
      this.most.set(label, Math.max(this.most.get(label) ?? 0, prob));
    }
    const all = [...this.most].map(([label, prob]) => ({ label, prob }));
    return all.sort((a, b) => b.prob - a.prob);
  }

  /** Shows that an event starts, goes on or has ended. @param {EventMessage} message */
  event(message) {
    const { id, label, start, kind } = message;
    const known = this.events.get(id);
    const end = message.end ?? Math.max(known?.end ?? 0, start + (message.resolution ?? 0));
    const isGroup = message.class === undefined && "mean" in message;
    this.events.set(id, { ...known, ...message, id, label, end, isGroup, isOpen: kind !== "end" });
    for (const old of this.events.values()) {
      if (old.end < this.end - KEPT && !old.isOpen) this.events.delete(old.id);
    }
    this.draw();
  }

  /** Ends all events: what told of them is gone. */
  cut() {
    this.events.forEach((event) => (event.isOpen = false));
    this.draw();
  }

  /** The threshold that counts on this page. */
  rule(label) {
    const on = this.tries.get(label);
    if (on !== undefined) return { on, off: usualOff(on), isKnown: true, isTried: true };
    return { ...this.own(label), isKnown: this.watched.has(label), isTried: false };
  }

  own(label) {
    return this.watched.get(label) ?? { on: UNKNOWN, off: usualOff(UNKNOWN) };
  }

  try(label, on) {
    this.tries.set(label, Math.min(0.99, Math.max(0.01, on)));
    this.refresh();
  }

  refresh() {
    this.bars.refresh();
    byId("tries").hidden = byId("legend").hidden = !this.tries.size;
    const tables = [...this.tries].map(([label, on]) => {
      const off = usualOff(on).toFixed(3);
      return `[rules.default.class.${JSON.stringify(label)}]\non = ${on.toFixed(2)}\noff = ${off}\n`;
    });
    byId("snippet").value = tables.join("\n");
    byId("snippet").rows = Math.min(11, 4 * tables.length);
    this.draw();
  }

  draw() {
    const tried = new Map();
    for (const label of this.tries.keys()) {
      tried.set(label, findEvents(this.chunks, label, this.rule(label)));
    }
    const told = [...this.events.values()];
    byId("newest").hidden = !told.length;
    this.timeline.show(told, tried, { end: this.end, whole: this.whole });
  }

  async copy() {
    byId("snippet").select();
    // Pages that are not secure have no clipboard.
    if (navigator.clipboard) await navigator.clipboard.writeText(byId("snippet").value);
    else document.execCommand("copy");
    byId("copy").textContent = "Copied";
    setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
  }
}
