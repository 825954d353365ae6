// Cameras and microphones of the server, each with a box to pause it.
import { make } from "./dom.js";

export class Sources {
  /**
   * @param {HTMLElement} list
   * @param {(name: string, enabled: boolean) => Promise<void>} onSwitch
   */
  constructor(list, onSwitch) {
    Object.assign(this, { list, onSwitch, shown: "" });
  }

  /** @param {{name: string, enabled: boolean, text: string}[]} sources */
  show(sources) {
    this.list.hidden = !sources.length;
    const asText = JSON.stringify(sources);
    if (asText === this.shown) return; // Whoever uses the keyboard stays where they are.
    this.shown = asText;
    const focused = document.activeElement?.value;
    const isFocused = this.list.contains(document.activeElement);
    const legend = make("legend", "", "The server listens to");
    this.list.replaceChildren(legend, ...sources.map((each) => this.box(each)));
    if (isFocused) [...this.list.querySelectorAll("input")].find(({ value }) => value === focused)?.focus();
  }

  box({ name, enabled, text }) {
    const label = make("label");
    const box = Object.assign(make("input"), { type: "checkbox", value: name, checked: enabled });
    box.addEventListener("change", async () => {
      box.disabled = true;
      await this.onSwitch(name, box.checked);
      box.disabled = false;
    });
    label.append(box, make("span", "", name), make("span", "hint", text));
    return label;
  }
}
