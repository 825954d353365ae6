// The engine of this page: the server.
import { LiveStream } from "./stream.js";
import { WatchedStream } from "./watch.js";

/** Classes of a chunk that are asked for. Hardly one that is heard is not among them. */
export const K = 50;

/** Asks the server for JSON; one that wants its token shows the page to log in. */
export async function ask(path, options) {
  const answer = await fetch(path, options).catch(() => {
    throw new Error("The server does not answer.");
  });
  if (answer.status === 401) location.reload();
  if (!answer.ok) throw new Error((await answer.text()).trim() || `${path}: ${answer.status}`);
  return answer.json();
}

/** A server's list of classes as the view wants it. */
export const toTop = (top) => top.map(([, label, prob]) => ({ label, prob }));

/** Returns an `Engine`, see main.js. */
export async function loadEngine() {
  const about = await ask("v1/model");
  const where = isHere() ? "on this device" : `on ${location.host}`;
  return {
    ready: "Ready.",
    note: `Sound is tagged by the server ${where} and not stored. Model: ${about.model}, chunks of ${about.chunk} s.`,
    isRemote: true,
    watched: new Map(Object.entries(about.watched)),
    listen: (rate, hear) => new LiveStream(rate, hear),
    tagFile,
    streams,
    watch: (value, hear) => new WatchedStream(JSON.parse(value), hear),
  };
}

const isHere = () => ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);

async function tagFile(file, hear) {
  const form = new FormData();
  form.append("file", file);
  const found = await ask(`v1/tag?k=${K}`, { method: "POST", body: form });
  hear.clear({ whole: found.seconds, hasSamples: false });
  const kinds = new Set(found.events.map((event) => event.label)).size;
  hear.status(`${file.name}: ${found.seconds.toFixed(1)} s, ${found.events.length} events of ${kinds} kinds.`);
  // The time of the upload says nothing about the sound.
  found.events.forEach((event) => hear.event({ ...event, time: "" }));
  found.chunks.forEach((chunk) => hear.chunk({ ...chunk, top: toTop(chunk.top) }));
}

async function streams() {
  const { streams: running, sources } = await ask("v1/streams");
  const names = new Set(running.map((stream) => stream.name));
  const watchable = running
    .filter((stream) => stream.source !== "upload" && !LiveStream.own.has(stream.id))
    .map(({ id, name, source }) => ({
      value: JSON.stringify({ id, name }),
      text: name === id ? `${source} ${id}` : `${name} (${source})`,
      isUp: true,
    }));
  const others = sources
    .filter(({ name }) => !names.has(name))
    .map(({ name, enabled, error }) => ({
      value: JSON.stringify({ id: "", name }),
      text: `${name}: ${enabled ? error || "no sound yet" : "off"}`,
      isUp: false,
    }));
  return [...watchable, ...others];
}
