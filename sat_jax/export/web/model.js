// The exported step in onnxruntime-web.
import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // More need a server that sends COOP and COEP headers.
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;

const read = async (name) => {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} cannot be read (${answer.status})`);
  return answer;
};

/** Loads the model: what export.json says, and a function that starts a stream. */
export async function loadModel() {
  const about = await (await read("export.json")).json();
  const [model, initial] = await Promise.all(
    [about.model_file, about.state_file].map(async (name) => (await read(name)).arrayBuffer())
  );
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const newState = () => {
    let at = 0;
    return about.state.map(({ name, shape, dtype }) => {
      const size = shape.reduce((a, b) => a * b, 1);
      const values = new (dtype === "int32" ? Int32Array : Float32Array)(initial, at, size).slice();
      at += 4 * size;
      return [name, new ort.Tensor(dtype, values, [1, ...shape])];
    });
  };
  return { about, newStream: () => new Stream(about, session, newState()) };
}

/** One stream: takes any number of samples, gives the chunks that they complete. */
class Stream {
  constructor(about, session, state) {
    Object.assign(this, { about, session, state });
    this.samples = new Float32Array(about.margin);
    this.started = about.margin === 0;
    this.chunks = 0;
  }

  /** Takes samples at the model's rate; returns [{start, end, probs}], times in seconds. */
  async push(samples) {
    const { window, hop, margin, sample_rate: rate } = this.about;
    const joined = new Float32Array(this.samples.length + samples.length);
    joined.set(this.samples);
    joined.set(samples, this.samples.length);
    this.samples = joined;
    if (!this.started && joined.length > 2 * margin) {
      // The spectrogram of the first chunk begins with the mirror image of its samples.
      joined.set(joined.slice(margin + 1, 2 * margin + 1).reverse());
      this.started = true;
    }
    const found = [];
    while (this.started && this.samples.length >= window) {
      const input = new ort.Tensor("float32", this.samples.slice(0, window), [1, window]);
      const outputs = await this.session.run({ samples: input, ...Object.fromEntries(this.state) });
      this.state = this.state.map(([name]) => [name, outputs[`new_${name}`]]);
      this.samples = this.samples.slice(hop);
      const start = (this.chunks * hop) / rate;
      this.chunks += 1;
      found.push({ start, end: (this.chunks * hop) / rate, probs: outputs.probs.data });
    }
    return found;
  }

  /** Fills the last chunk up with silence, if one began. */
  async finish() {
    const left = this.samples.length - this.about.margin;
    if (left <= 0) return [];
    const end = (this.chunks * this.about.hop + left) / this.about.sample_rate;
    const [last] = await this.push(new Float32Array(this.about.window));
    return [{ ...last, end: Math.min(end, last.end) }];
  }
}
