// Joins sound, engine and view.
import { canListen, listMicrophones, openMicrophone } from "./audio.js";
import { byId } from "./dom.js";
import { loadEngine } from "./engine.js";
import { Sources } from "./sources.js";
import { View } from "./view.js";

/**
 * What turns sound into tags.
 * @typedef {object} Engine
 * @property {string} ready what to say when it can begin
 * @property {string} note what to say about model and privacy
 * @property {boolean} isRemote whether there is a connection to show
 * @property {Map<string, {on: number, off: number}>} watched thresholds by class or group
 * @property {(rate: number, hear: Hearing) => {push: (samples: Float32Array) => void, stop: () =>
 *   Promise<void>}} listen starts a stream of samples at `rate`
 * @property {(file: File, hear: Hearing) => Promise<void>} tagFile
 * @property {() => Promise<{streams: {value: string, text: string}[], sources: {name: string,
 *   enabled: boolean, text: string}[]}>} [elsewhere] lists what is heard elsewhere
 * @property {(value: string, hear: Hearing) => {stop: () => Promise<void>}} [watch] follows a stream
 * @property {(name: string, enabled: boolean) => Promise<void>} [switch] pauses a source, or goes on
 */

/** What an engine tells of one stream; nothing is shown once another one has begun. */
class Hearing {
  constructor(view) {
    for (const name of ["clear", "chunk", "event", "cut", "samples", "status", "connection"]) {
      this[name] = (...values) => this.isOver || view[name](...values);
    }
  }

  /** The stream has ended by itself. */
  ended(text) {
    if (!this.isOver) finish(text, true);
  }
}

const LIST_EVERY = 5000; // Milliseconds.
const [listen, source, file] = ["listen", "source", "file"].map(byId);
const sources = new Sources(byId("sources"), switchSource);
let [engine, view, hearing, stop] = [null, null, null, null];

const explain = (error) => view.status(String(error.message ?? error), true);

/** Ends what is heard; starts anew: nothing of the sound before is left. */
async function begin(about) {
  const stopping = stop;
  stop = null;
  await stopping?.();
  if (hearing) hearing.isOver = true;
  hearing = new Hearing(view);
  view.clear(about);
  view.connection("off");
  return hearing;
}

function show(isListening) {
  listen.textContent = isListening ? "Stop" : "Listen";
  listen.classList.toggle("on", isListening);
}

async function finish(text = "Stopped.", isProblem = false) {
  const stopping = stop;
  stop = null;
  show(false);
  await stopping?.();
  view.connection("off");
  view.status(text, isProblem);
}

async function start() {
  const [kind, value] = [source.value.slice(0, 1), source.value.slice(1)];
  show(true);
  try {
    await (kind === "s" ? watch(value) : startMicrophone(value));
  } catch (error) {
    await finish();
    explain(error);
  }
}

async function startMicrophone(deviceId) {
  const hear = await begin({ hasSamples: true });
  let stream = null;
  const take = (samples, rate) => {
    hear.samples(samples, rate);
    stream?.push(samples);
  };
  const lost = () => hear.ended("The microphone has gone.");
  const microphone = await openMicrophone(deviceId, take, lost);
  if (hear.isOver) return microphone.close(); // Another sound has begun meanwhile.
  stream = engine.listen(microphone.rate, hear);
  stop = async () => {
    await microphone.close();
    await stream.stop();
  };
  view.status("Listening.");
  await list();
}

async function watch(value) {
  const stream = engine.watch(value, await begin({ hasSamples: false }));
  stop = () => stream.stop();
}

async function tagFile(sound) {
  show(false);
  const hear = await begin({ hasSamples: false });
  view.status(`Reading ${sound.name} …`);
  try {
    await engine.tagFile(sound, hear);
  } catch (error) {
    hear.status(String(error.message ?? error), true);
  }
}

/** Lists microphones, streams and sources. */
async function list() {
  const microphones = canListen() ? await listMicrophones() : [];
  const elsewhere = (await engine.elsewhere?.().catch(() => null)) ?? { streams: [], sources: [] };
  sources.show(elsewhere.sources);
  const groups = [
    ["Microphone", microphones.map(({ label, deviceId }, i) => ({
      value: `m${deviceId}`, text: label || `Microphone ${i + 1}`,
    }))],
    ["Streams of the server", elsewhere.streams.map(({ value, text }) => ({ value: `s${value}`, text }))],
  ].filter(([, options]) => options.length);
  const count = groups.length;
  const asText = JSON.stringify(groups);
  if (asText !== source.dataset.shown) {
    const chosen = source.value;
    const none = count ? [] : [new Option("nothing to listen to", "")];
    source.replaceChildren(...groups.map(([name, options]) => group(name, options)), ...none);
    source.dataset.shown = asText;
    if ([...source.options].some((option) => option.value === chosen)) source.value = chosen;
  }
  source.hidden = source.options.length < 2 && !engine.elsewhere;
  source.disabled = !count;
  listen.disabled = !count && !stop;
}

function group(name, options) {
  const made = Object.assign(document.createElement("optgroup"), { label: name });
  made.append(...options.map(({ value, text }) => new Option(text, value)));
  return made;
}

async function switchSource(name, enabled) {
  await engine.switch(name, enabled).catch(explain);
  await list();
}

function control() {
  listen.addEventListener("click", () => (stop ? finish() : start()));
  source.addEventListener("change", () => stop && start());
  file.addEventListener("change", () => {
    if (file.files.length) tagFile(file.files[0]);
    file.value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragover");
      const [dropped] = kind === "drop" ? event.dataTransfer.files : [];
      if (dropped) tagFile(dropped);
    });
  }
  navigator.mediaDevices?.addEventListener("devicechange", () => list());
  if (engine.elsewhere) setInterval(() => document.hidden || list(), LIST_EVERY);
}

try {
  engine = await loadEngine();
  view = new View(engine.watched);
  byId("note").textContent = engine.note;
  byId("light").hidden = !engine.isRemote;
  view.connection("off");
  control(); // Before anything can be used.
  file.disabled = false;
  if (!canListen()) {
    const others = engine.elsewhere ? " Streams and files work here." : " Files work here.";
    byId("insecure").hidden = false;
    byId("insecure").textContent =
      `Browsers give the microphone only to pages from HTTPS or localhost.${others}`;
  }
  await list();
  view.status(engine.ready);
} catch (error) {
  byId("status").textContent = `The page cannot start: ${error.message ?? error}`;
  byId("status").classList.add("problem");
}
