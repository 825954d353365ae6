// A spectrogram that scrolls: one column each 32 ms, up to 8 kHz.
const SECONDS = 0.032;
export const HIGHEST = 8000;

export class Spectrogram {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.setRate(16000);
  }

  /** Sets the rate of the samples that follow, Hz. */
  setRate(rate) {
    if (rate === this.rate) return;
    this.rate = rate;
    this.hop = Math.round(rate * SECONDS);
    this.size = 2 ** Math.ceil(Math.log2(this.hop));
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
    const total = Math.max(0, Math.floor((all.length - this.size) / this.hop) + 1);
    const count = Math.min(width, total);
    if (count) {
      const image = this.context.createImageData(count, height);
      for (let column = 0; column < count; column++) {
        const begin = (total - count + column) * this.hop;
        this.column(image, column, all.subarray(begin, begin + this.size));
      }
      this.context.drawImage(this.canvas, -count, 0);
      this.context.putImageData(image, width - count, 0);
    }
    this.kept = all.slice(total * this.hop);
  }

  column(image, column, samples) {
    const power = spectrum(samples.map((value, i) => value * this.window[i]));
    const shown = Math.min(power.length, (HIGHEST / this.rate) * this.size);
    const scale = (512 / this.size) ** 2;
    for (let y = 0; y < image.height; y++) {
      const bin = Math.floor(((image.height - 1 - y) / image.height) * shown);
      const decibels = 10 * Math.log10(power[bin] * scale + 1e-9);
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
