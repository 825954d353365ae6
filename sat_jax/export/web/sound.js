// Sound at the model's rate.

/** Resamples a stream by a windowed sinc. */
export class Resampler {
  constructor(rate, newRate, taps = 32) {
    this.ratio = rate / newRate;
    this.cutoff = Math.min(1, 1 / this.ratio);
    this.half = Math.round(taps / this.cutoff);
    this.kept = new Float32Array(this.half); // Silence before the first sample.
    this.at = this.half; // Where in `kept` the next output lies.
  }

  push(samples) {
    if (this.ratio === 1) return samples;
    const all = new Float32Array(this.kept.length + samples.length);
    all.set(this.kept);
    all.set(samples, this.kept.length);
    const out = [];
    for (; this.at + this.half + 1 < all.length; this.at += this.ratio) {
      const near = Math.floor(this.at);
      let sum = 0;
      for (let i = -this.half + 1; i <= this.half; i++) {
        const distance = i - (this.at - near);
        const angle = Math.PI * this.cutoff * distance;
        const sinc = Math.abs(angle) < 1e-9 ? 1 : Math.sin(angle) / angle;
        const window = 0.5 + 0.5 * Math.cos((Math.PI * distance) / (this.half + 1));
        sum += all[near + i] * this.cutoff * sinc * window;
      }
      out.push(sum);
    }
    const drop = Math.max(0, Math.floor(this.at) - this.half);
    this.kept = all.slice(drop);
    this.at -= drop;
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
