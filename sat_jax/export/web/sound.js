// Sound at the model's rate.

const BLACKMAN_HARRIS = [0.35875, 0.48829, 0.14128, 0.01168];

/** Resamples a stream by a windowed sinc, as run.py does. */
export class Resampler {
  constructor(rate, newRate, zeros = 96) {
    const divisor = (a, b) => (b ? divisor(b, a % b) : a);
    this.given = newRate / divisor(rate, newRate);
    this.taken = rate / divisor(rate, newRate); // So many samples become `given`.
    const cutoff = 0.956 * Math.min(1, newRate / rate);
    this.half = Math.ceil(zeros / cutoff);
    this.filters = Array.from({ length: this.given }, (_, phase) => {
      const between = ((phase * this.taken) / this.given) % 1;
      return Float32Array.from({ length: 2 * this.half + 1 }, (_, i) => {
        const distance = i - this.half - between;
        const angle = Math.PI * cutoff * distance;
        const place = Math.PI * Math.min(Math.abs(distance) / (this.half + 1), 1);
        const window = BLACKMAN_HARRIS.reduce((sum, each, k) => sum + each * Math.cos(k * place), 0);
        return cutoff * window * (Math.abs(angle) < 1e-9 ? 1 : Math.sin(angle) / angle);
      });
    });
    this.kept = new Float32Array(this.half); // Silence before the first sample.
    this.made = 0; // Outputs since the first sample of `kept`.
  }

  push(samples) {
    if (this.given === this.taken) return samples;
    const all = new Float32Array(this.kept.length + samples.length);
    all.set(this.kept);
    all.set(samples, this.kept.length);
    const out = [];
    const place = () => Math.floor((this.made * this.taken) / this.given);
    for (; place() + 2 * this.half < all.length; this.made++) {
      const [first, filter] = [place(), this.filters[this.made % this.given]];
      let sum = 0;
      for (let i = 0; i < filter.length; i++) sum += all[first + i] * filter[i];
      out.push(sum);
    }
    const turns = Math.floor(this.made / this.given); // Whole ones, so that phases stay.
    this.kept = all.slice(turns * this.taken);
    this.made -= turns * this.given;
    return Float32Array.from(out);
  }
}

/** Decodes a file to mono samples at `rate`. */
export async function decodeFile(file, rate) {
  const context = new OfflineAudioContext(1, 1, rate);
  const sound = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error(`${file.name} cannot be decoded.`);
  });
  const mono = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, i) => (mono[i] += value / sound.numberOfChannels));
  }
  return mono;
}
