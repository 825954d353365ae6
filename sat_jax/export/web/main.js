// Joins sound, engine and view.
import { decodeFile, listMicrophones, openMicrophone } from "./audio.js";
import { loadEngine } from "./engine.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);
const [listen, microphones, file] = ["listen", "microphones", "file"].map(byId);
let [engine, view, stop, busy] = [null, null, null, Promise.resolve()];

const explain = (error) => view?.status(String(error.message ?? error), true);

/** Starts anew: nothing of the sound before is left. */
async function start() {
  await stop?.();
  stop = null;
  await busy;
  view.clear();
  view.whole = 0;
  return engine.newStream();
}

async function startMicrophone() {
  const stream = await start();
  const take = async (samples) => {
    view.samples(samples);
    (await stream.push(samples)).forEach((chunk) => view.chunk(chunk));
  };
  const close = await openMicrophone(
    engine.about.sample_rate,
    microphones.value,
    (samples) => (busy = busy.then(() => take(samples)).catch(explain))
  );
  stop = async () => {
    await close();
    listen.textContent = "Start microphone";
    listen.classList.remove("on");
    view.status("Stopped.");
  };
  listen.textContent = "Stop microphone";
  listen.classList.add("on");
  view.status("Listening.");
  await showMicrophones();
}

async function showMicrophones() {
  const found = await listMicrophones(); // Names are known only after permission.
  const chosen = microphones.value;
  microphones.replaceChildren(
    ...found.map((device, i) => new Option(device.label || `Microphone ${i + 1}`, device.deviceId))
  );
  if (chosen) microphones.value = chosen;
  microphones.hidden = found.length < 2;
}

async function tagFile(sound) {
  const stream = await start();
  view.status(`Reading ${sound.name} …`);
  const { sample_rate: rate, hop } = engine.about;
  const samples = await decodeFile(sound, rate);
  view.whole = samples.length / rate;
  view.status(`${sound.name}: ${view.whole.toFixed(1)} s`);
  for (let first = 0; first < samples.length; first += hop) {
    const block = samples.subarray(first, first + hop);
    view.samples(block);
    (await stream.push(block)).forEach((chunk) => view.chunk(chunk));
  }
  (await stream.finish()).forEach((chunk) => view.chunk(chunk));
}

listen.addEventListener("click", () => (stop ? stop() : startMicrophone()).catch(explain));
microphones.addEventListener("change", () => stop && startMicrophone().catch(explain));
file.addEventListener("change", () => {
  if (file.files.length) tagFile(file.files[0]).catch(() => explain("This file cannot be decoded."));
  file.value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
    const [dropped] = kind === "drop" ? event.dataTransfer.files : [];
    if (dropped && engine) tagFile(dropped).catch(() => explain("This file cannot be decoded."));
  });
}

try {
  const began = performance.now();
  engine = await loadEngine();
  view = new View(engine.about.labels, engine.about.sample_rate);
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  view.status(`Ready after ${seconds} s.`);
  byId("model").textContent = `Model: ${engine.about.model}.`;
  file.disabled = false;
  listen.disabled = !navigator.mediaDevices;
  if (!navigator.mediaDevices) {
    view.status("Browsers give the microphone only to pages from localhost or HTTPS.", true);
  }
} catch (error) {
  byId("status").textContent = `The model cannot be loaded: ${error.message ?? error}`;
  byId("status").classList.add("problem");
}
