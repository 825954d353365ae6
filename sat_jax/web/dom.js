// Small helpers for the page's elements.
export const byId = (id) => document.getElementById(id);

/** Makes an element with a class and text. */
export function make(tag, className = "", text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

/** Seconds as 1:05, or 1:01:05. */
export function clock(seconds) {
  const whole = Math.floor(seconds + 1e-6);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const two = (number) => String(number).padStart(2, "0");
  const start = hours ? `${hours}:${two(minutes)}` : minutes;
  return `${start}:${two(whole % 60)}`;
}

export const percent = (prob) => `${Math.round(prob * 100)} %`;
