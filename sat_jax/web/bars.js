// The most probable classes, with a mark for each threshold that can be moved.
import { make, percent } from "./dom.js";

/** A class of the list: name, bar, marks. */
class Row {
  constructor(label, onTry) {
    this.item = make("li");
    this.bar = make("span", "bar");
    this.off = make("span", "off");
    this.percent = make("span", "percent");
    this.on = Object.assign(make("input", "on"), { type: "range", min: 0, max: 1, step: 0.01 });
    this.on.setAttribute("aria-label", `Threshold of ${label}`);
    this.on.addEventListener("input", () => onTry(label, Number(this.on.value)));
    this.on.addEventListener("pointerup", () => this.on.blur()); // The list may move again.
    const [name, track] = [make("span", "name", label), make("span", "track")];
    name.title = label;
    track.append(this.bar, this.off, this.on);
    this.item.append(name, track, this.percent);
  }

  show(prob, rule) {
    this.bar.style.width = `${prob * 100}%`;
    this.percent.textContent = percent(prob);
    this.off.hidden = !rule.isKnown;
    this.off.style.left = `${rule.off * 100}%`;
    this.on.value = rule.on;
    this.on.title = rule.isKnown ? `heard from ${percent(rule.on)}` : "not watched";
    this.on.setAttribute("aria-valuetext", `${percent(rule.on)}${rule.isKnown ? "" : ", not watched"}`);
    this.item.classList.toggle("shown", rule.isKnown && prob >= rule.on);
    this.item.classList.toggle("unset", !rule.isKnown);
    this.item.classList.toggle("trying", rule.isTried);
  }
}

export class Bars {
  /**
   * @param {HTMLElement} list
   * @param {(label: string) => {on, off, isKnown, isTried}} rule
   * @param {(label: string, on: number) => void} onTry is told of a mark that was moved
   */
  constructor(list, rule, onTry) {
    Object.assign(this, { list, rule, onTry });
    this.clear();
  }

  clear() {
    this.rows = new Map();
    this.top = [];
    this.list.replaceChildren();
  }

  /** @param {{label: string, prob: number}[]} top the most probable first */
  show(top) {
    this.top = top;
    // Nobody can use a mark that runs away.
    const isHeld = this.list.contains(document.activeElement);
    if (!isHeld) {
      this.rows = new Map(
        top.map(({ label }) => [label, this.rows.get(label) ?? new Row(label, this.onTry)])
      );
      this.list.replaceChildren(...[...this.rows.values()].map((row) => row.item));
    }
    this.refresh();
  }

  /** Draws the same classes anew, as when a threshold has changed. */
  refresh() {
    const probs = new Map(this.top.map(({ label, prob }) => [label, prob]));
    this.rows.forEach((row, label) => row.show(probs.get(label) ?? 0, this.rule(label)));
  }
}
