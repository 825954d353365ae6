// Scores to events, as `sat-jax tag` and the server define them.

/** Events with a shorter gap between them are one; seconds. */
const MIN_OFF = 3;

/** Score under which a class is no longer heard: one unit of log odds under `on`. */
export const usualOff = (on) => 1 / (1 + (Math.E * (1 - on)) / on);

/**
 * What starts, goes on or ends.
 * @typedef {{kind: "start"|"update"|"end", id: string, label: string, start: number, end: number,
 *   peak: number, time?: string}} EventMessage
 */

/** Finds events chunk by chunk. */
export class EventTracker {
  /** @param {(label: string) => {on: number, off: number} | undefined} rule of each class */
  constructor(rule) {
    this.rule = rule;
    this.open = new Map();
  }

  /**
   * @param {{start: number, end: number}} chunk
   * @param {Map<string, number>} probs of the classes; one that is missing has none
   * @returns {EventMessage[]}
   */
  push({ start, end }, probs) {
    const told = [];
    for (const label of new Set([...probs.keys(), ...this.open.keys()])) {
      const rule = this.rule(label);
      if (!rule) continue;
      const prob = probs.get(label) ?? 0;
      let event = this.open.get(label);
      const isHeard = prob >= (event?.isHeard ? rule.off : rule.on);
      if (event && !event.isHeard && (isHeard ? start : end) - event.end >= MIN_OFF - 1e-6) {
        this.open.delete(label);
        told.push({ ...event, kind: "end" });
        event = undefined;
      }
      if (isHeard && event) {
        Object.assign(event, { end, peak: Math.max(event.peak, prob) });
        told.push({ ...event, kind: "update" });
      } else if (isHeard) {
        event = { id: `${start}.${label}`, label, start, end, peak: prob };
        this.open.set(label, event);
        told.push({ ...event, kind: "start" });
      }
      if (event) event.isHeard = isHeard;
    }
    return told;
  }
}

/**
 * Returns the events of one class.
 * @param {{start: number, end: number, probs: Map<string, number>}[]} chunks
 * @param {string} label
 * @param {{on: number, off: number}} rule
 * @returns {EventMessage[]}
 */
export function findEvents(chunks, label, rule) {
  const found = new Map();
  const tracker = new EventTracker(() => rule);
  for (const chunk of chunks) {
    const probs = new Map([[label, chunk.probs.get(label) ?? 0]]);
    tracker.push(chunk, probs).forEach((event) => found.set(event.id, event));
  }
  return [...found.values()];
}
