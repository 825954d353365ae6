// The engine of this page: the exported model, in the browser.
import { EventTracker, usualOff } from "./events.js";
import { loadModel } from "./model.js";
import { decodeFile, Resampler } from "./sound.js";

const KEPT = 50; // Classes of a chunk that the view gets.
const USUAL_ON = 0.3;

/** Loads the model. Returns an `Engine`, see main.js. */
export async function loadEngine() {
  const began = performance.now();
  const { about, newStream } = await loadModel();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const on = about.labels.map((label) => label.threshold ?? USUAL_ON);
  // The model cannot tell a class with a threshold of 1.
  const able = about.labels.map((label, i) => [label.name, on[i]]).filter(([, each]) => each < 1);
  const watched = new Map(able.map(([name, each]) => [name, { on: each, off: usualOff(each) }]));
  const start = (hear) => new Tagging(about, newStream(), watched, hear);
  return {
    ready: `Ready after ${seconds} s.`,
    note: `All is computed in this page. No sound leaves this device. Model: ${about.model}.`,
    isRemote: false,
    watched,
    listen: (rate, hear) => listen(start(hear), new Resampler(rate, about.sample_rate), hear),
    tagFile: (file, hear) => tagFile(file, start(hear), about, hear),
  };
}

/** A stream, and who hears of it. */
class Tagging {
  constructor(about, stream, watched, hear) {
    Object.assign(this, { about, stream, hear });
    this.tracker = new EventTracker((label) => watched.get(label));
  }

  async push(samples) {
    this.tell(await this.stream.push(samples));
  }

  async finish() {
    this.tell(await this.stream.finish());
    this.hear.cut();
  }

  tell(chunks) {
    for (const { start, end, probs } of chunks) {
      const all = [...probs].map((prob, i) => ({ label: this.about.labels[i].name, prob }));
      const top = all.sort((a, b) => b.prob - a.prob);
      this.hear.chunk({ start, end, top: top.slice(0, KEPT) });
      const scores = new Map(top.map(({ label, prob }) => [label, prob]));
      this.tracker.push({ start, end }, scores).forEach((event) => this.hear.event(event));
    }
  }
}

function listen(tagging, resampler, hear) {
  let busy = Promise.resolve();
  const then = (work) => {
    busy = busy.then(work).catch((error) => hear.ended(String(error.message ?? error)));
    return busy;
  };
  return {
    push: (samples) => then(() => tagging.push(resampler.push(samples))),
    stop: () => then(() => tagging.finish()),
  };
}

async function tagFile(file, tagging, about, hear) {
  const { sample_rate: rate, hop } = about;
  const samples = await decodeFile(file, rate);
  const whole = samples.length / rate;
  hear.clear({ whole, hasSamples: true });
  hear.status(`${file.name}: ${whole.toFixed(1)} s`);
  for (let first = 0; first < samples.length && !hear.isOver; first += hop) {
    const block = samples.subarray(first, first + hop);
    hear.samples(block, rate);
    await tagging.push(block);
    // Gives the browser time to draw; hidden pages would wait for long.
    if (!document.hidden) await new Promise((resolve) => setTimeout(resolve));
  }
  await tagging.finish();
}
