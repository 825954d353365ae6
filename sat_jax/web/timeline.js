// Events over time: a row for each class, and a list of the newest.
import { clock, make, percent } from "./dom.js";

const ROWS = 12;
const LOGGED = 8;
const SHOWN = 60; // Seconds of a stream.

export class Timeline {
  constructor(chart, log) {
    Object.assign(this, { chart, log });
  }

  /**
   * Draws the last minute, or a whole file.
   * @param {EventMessage[]} told events by the rules
   * @param {Map<string, EventMessage[]>} tried events of the classes whose thresholds are tried
   * @param {{end: number, whole: number}} times end of the sound so far; length of a file, or 0
   */
  show(told, tried, { end, whole }) {
    const first = whole ? 0 : Math.max(0, end - SHOWN);
    const length = whole || Math.max(end - first, 10);
    const isRecent = (event) => event.end > first;
    const rows = new Map();
    for (const event of [...told, ...[...tried.values()].flat()].filter(isRecent)) {
      rows.set(event.label, Math.max(rows.get(event.label) ?? 0, event.end));
    }
    const labels = [...rows.keys()].sort((a, b) => rows.get(b) - rows.get(a)).slice(0, ROWS);
    const drawn = labels.map((label) => {
      const row = make("div", "row");
      const [name, track] = [make("span", "name", label), make("div", "track")];
      name.title = label;
      const add = (event, kind) => track.append(span(event, kind, first, length));
      const isTried = tried.has(label);
      const own = told.filter((event) => event.label === label && isRecent(event));
      own.forEach((event) => add(event, isTried ? "span faint" : "span"));
      (tried.get(label) ?? []).filter(isRecent).forEach((event) => add(event, "span tried"));
      row.append(name, track);
      return row;
    });
    this.list(told);
    if (!drawn.length) {
      this.chart.replaceChildren(make("p", "hint", "Sounds appear here when they are heard."));
      return;
    }
    const scale = make("div", "scale");
    scale.append(make("span", "", clock(first)), make("span", "", clock(first + length)));
    this.chart.replaceChildren(...drawn, scale);
  }

  list(told) {
    const newest = [...told].sort((a, b) => b.start - a.start).slice(0, LOGGED);
    this.log.replaceChildren(
      ...newest.map((event) => {
        const item = make("li");
        const when = event.time ? new Date(event.time).toLocaleTimeString() : clock(event.start);
        const seconds = event.isOpen ? "now" : `${(event.end - event.start).toFixed(1)} s`;
        item.append(make("time", "", when), make("span", "name", event.label));
        item.append(make("span", event.isOpen ? "now" : "", seconds));
        item.append(make("span", "percent", percent(event.peak)));
        return item;
      })
    );
  }
}

function span(event, kind, first, length) {
  const made = make("span", kind);
  const begin = Math.max(event.start, first);
  made.style.left = `${((begin - first) / length) * 100}%`;
  made.style.width = `${((event.end - begin) / length) * 100}%`;
  made.title = `${event.label} ${clock(event.start)} to ${clock(event.end)}, ${percent(event.peak)}`;
  return made;
}
