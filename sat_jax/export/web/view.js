// What a person sees. Knows labels, chunks and samples, but not where they come from.
const TOP = 6;
const USUAL_THRESHOLD = 0.3;
const ROWS = 12;
const byId = (id) => document.getElementById(id);
const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

export class View {
  constructor(labels, rate) {
    Object.assign(this, { labels, rate });
    this.spectrogram = new Spectrogram(byId("spectrogram"));
    this.hint = byId("timeline").firstElementChild;
    this.clear();
  }

  /** Forgets the sound before. `whole` is the length of a file in seconds, 0 for live sound. */
  clear() {
    this.events = [];
    this.end = this.whole = 0;
    byId("bars").replaceChildren();
    this.timeline();
    byId("time").textContent = "";
    this.spectrogram.clear();
  }

  status(text, isProblem = false) {
    byId("status").textContent = text;
    byId("status").classList.toggle("problem", isProblem);
  }

  threshold(index) {
    return this.labels[index].threshold ?? USUAL_THRESHOLD;
  }

  /** Shows level and spectrogram of new samples. */
  samples(block) {
    const peak = block.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const power = block.reduce((sum, value) => sum + value * value, 0) / Math.max(1, block.length);
    const decibels = Math.max(-60, 10 * Math.log10(power + 1e-12));
    byId("level").style.width = `${((decibels + 60) / 60) * 100}%`;
    byId("level").parentElement.setAttribute("aria-valuenow", Math.round(decibels));
    byId("clip").classList.toggle("on", peak >= 0.999);
    this.spectrogram.push(block);
  }

  /** Shows a chunk: bars of its most probable classes, and events that go on or begin. */
  chunk({ start, end, probs }) {
    const order = [...probs.keys()].sort((a, b) => probs[b] - probs[a]).slice(0, TOP);
    byId("bars").replaceChildren(...order.map((index) => this.bar(index, probs[index])));
    byId("time").textContent = `${clock(start)} to ${clock(end)}`;
    for (let index = 0; index < probs.length; index++) {
      if (probs[index] < this.threshold(index)) continue;
      const last = this.events.findLast((event) => event.index === index);
      if (last && last.end >= start - 1e-6) {
        last.end = end;
        last.prob = Math.max(last.prob, probs[index]);
      } else {
        this.events.push({ index, start, end, prob: probs[index] });
      }
    }
    this.end = end;
    this.timeline();
  }

  bar(index, prob) {
    const item = document.createElement("li");
    const [name, track, bar, mark, percent] = ["name", "track", "bar", "threshold", "percent"].map(
      (kind) => Object.assign(document.createElement("span"), { className: kind })
    );
    name.textContent = name.title = this.labels[index].name;
    bar.style.cssText = `display: block; width: ${prob * 100}%`;
    mark.style.left = `${this.threshold(index) * 100}%`;
    percent.textContent = `${Math.round(prob * 100)} %`;
    track.append(bar, mark);
    item.append(name, track, percent);
    item.classList.toggle("shown", prob >= this.threshold(index));
    return item;
  }

  /** Draws a row for each of the classes heard last, over the last minute or the whole file. */
  timeline() {
    const first = this.whole ? 0 : Math.max(0, this.end - 60);
    const length = Math.max(this.whole, this.end - first, 10);
    const recent = this.events.filter((event) => event.end > first);
    const classes = [...new Set(recent.map((event) => event.index))];
    const newest = (index) => Math.max(...recent.filter((e) => e.index === index).map((e) => e.end));
    classes.sort((a, b) => newest(b) - newest(a));
    const rows = classes.slice(0, ROWS).map((index) => {
      const row = Object.assign(document.createElement("div"), { className: "row" });
      const name = Object.assign(document.createElement("span"), { className: "name" });
      const track = Object.assign(document.createElement("div"), { className: "track" });
      name.textContent = name.title = this.labels[index].name;
      for (const event of recent.filter((each) => each.index === index)) {
        const span = Object.assign(document.createElement("span"), { className: "span" });
        const begin = Math.max(event.start, first);
        span.style.left = `${((begin - first) / length) * 100}%`;
        span.style.width = `${((event.end - begin) / length) * 100}%`;
        const percent = Math.round(event.prob * 100);
        span.title = `${name.textContent} ${clock(event.start)} to ${clock(event.end)}, ${percent} %`;
        track.append(span);
      }
      row.append(name, track);
      return row;
    });
    const scale = Object.assign(document.createElement("div"), { className: "scale" });
    scale.append(...[first, first + length].map((time) =>
      Object.assign(document.createElement("span"), { textContent: clock(time) })
    ));
    byId("timeline").replaceChildren(...(rows.length ? [...rows, scale] : [this.hint]));
  }
}

/** A spectrogram that scrolls: one column for each 512 samples. */
class Spectrogram {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.size = 512;
    this.window = Float32Array.from({ length: this.size }, (_, i) =>
      0.5 - 0.5 * Math.cos((2 * Math.PI * i) / this.size)
    );
    this.clear();
  }

  clear() {
    this.kept = new Float32Array(0);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  push(samples) {
    const all = new Float32Array(this.kept.length + samples.length);
    all.set(this.kept);
    all.set(samples, this.kept.length);
    const { width, height } = this.canvas;
    const total = Math.floor(all.length / this.size);
    const count = Math.min(width, total);
    if (count) {
      const image = this.context.createImageData(count, height);
      for (let column = 0; column < count; column++) {
        const begin = (total - count + column) * this.size;
        this.column(image, column, all.subarray(begin, begin + this.size));
      }
      this.context.drawImage(this.canvas, -count, 0);
      this.context.putImageData(image, width - count, 0);
    }
    this.kept = all.slice(total * this.size);
  }

  column(image, column, samples) {
    const power = spectrum(samples.map((value, i) => value * this.window[i]));
    for (let y = 0; y < image.height; y++) {
      const bin = Math.floor(((image.height - 1 - y) / image.height) * power.length);
      const decibels = 10 * Math.log10(power[bin] + 1e-9);
      const level = Math.min(1, Math.max(0, (decibels + 50) / 80));
      const place = 4 * (y * image.width + column);
      image.data[place] = 255 * Math.min(1, 1.8 * level ** 1.5);
      image.data[place + 1] = 255 * level ** 2;
      image.data[place + 2] = 255 * (0.35 * Math.sin(Math.PI * level) + 0.6 * level ** 4);
      image.data[place + 3] = 255;
    }
  }
}

/** Power of the lower half of a Fourier transform; the length is a power of two. */
function spectrum(samples) {
  const n = samples.length;
  const real = Float64Array.from(samples);
  const imaginary = new Float64Array(n);
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]];
  }
  for (let size = 2; size <= n; size *= 2) {
    for (let k = 0; k < size / 2; k++) {
      const angle = (-2 * Math.PI * k) / size;
      const [c, s] = [Math.cos(angle), Math.sin(angle)];
      for (let i = k; i < n; i += size) {
        const j = i + size / 2;
        const [a, b] = [real[j] * c - imaginary[j] * s, real[j] * s + imaginary[j] * c];
        [real[j], imaginary[j]] = [real[i] - a, imaginary[i] - b];
        real[i] += a;
        imaginary[i] += b;
      }
    }
  }
  return real.slice(0, n / 2).map((value, i) => value * value + imaginary[i] * imaginary[i]);
}
