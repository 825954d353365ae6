// Joins sound, engine and view.
import { decodeFile, listMicrophones, openMicrophone } from "./audio.js";
import { loadEngine } from "./engine.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);
const [listen, microphones, file] = ["listen", "microphones", "file"].map(byId);
let [engine, view, close, turn] = [null, null, null, 0];

const explain = (error) => view?.status(String(error.message ?? error), true);

/** Ends what goes on. */
async function end() {
  turn += 1;
  const closing = close;
  close = null;
  listen.textContent = "Start microphone";
  listen.classList.remove("on");
  await closing?.();
}

/** Starts anew: nothing of the sound before is left. What it returns works until the next start. */
async function start() {
  const ended = end();
  const mine = turn;
  await ended;
  view.clear();
  const stream = engine.newStream();
  const goesOn = () => mine === turn;
  const show = (chunks) => goesOn() && chunks.forEach((chunk) => view.chunk(chunk));
  const take = async (samples) => {
    if (!goesOn()) return;
    view.samples(samples);
    show(await stream.push(samples));
  };
  return { goesOn, take, finish: async () => show(await stream.finish()) };
}

async function startMicrophone() {
  const { goesOn, take } = await start();
  let last = Promise.resolve();
  const opened = await openMicrophone(
    engine.about.sample_rate,
    microphones.value,
    (samples) => (last = last.then(() => take(samples)).catch(explain))
  );
  if (!goesOn()) return opened();
  close = opened;
  listen.textContent = "Stop microphone";
  listen.classList.add("on");
  view.status("Listening.");
  await showMicrophones();
}

async function stopMicrophone() {
  await end();
  view.status("Stopped.");
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
  const { goesOn, take, finish } = await start();
  view.status(`Reading ${sound.name} …`);
  const { sample_rate: rate, hop } = engine.about;
  const samples = await decodeFile(sound, rate);
  if (!goesOn()) return;
  view.whole = samples.length / rate;
  view.status(`${sound.name}: ${view.whole.toFixed(1)} s`);
  for (let first = 0; first < samples.length && goesOn(); first += hop) {
    await take(samples.subarray(first, first + hop));
    // Gives the browser time to draw; hidden pages would wait for long.
    if (!document.hidden) await new Promise((resolve) => setTimeout(resolve));
  }
  if (goesOn()) await finish();
}

listen.addEventListener("click", () => (close ? stopMicrophone() : startMicrophone()).catch(explain));
microphones.addEventListener("change", () => close && startMicrophone().catch(explain));
file.addEventListener("change", () => {
  if (file.files.length) tagFile(file.files[0]).catch(explain);
  file.value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
    const [dropped] = kind === "drop" ? event.dataTransfer.files : [];
    if (dropped && engine) tagFile(dropped).catch(explain);
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
