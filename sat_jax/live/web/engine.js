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
    elsewhere,
    switch: switchSource,
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

async function elsewhere() {
  const { streams: running, sources } = await ask("v1/streams");
  const isWatchable = ({ id, source }) => source !== "upload" && !LiveStream.own.has(id);
  const streams = running.filter(isWatchable).map(({ id, name, source }) => ({
    value: JSON.stringify({ id, name }),
    text: name === id ? `${source} ${id}` : `${name} (${source})`,
  }));
  const isHeard = new Set(running.map(({ name }) => name));
  const about = ({ name, enabled, error, silent }) => {
    if (!enabled) return "paused";
    return error || (silent && "only silence comes") || (isHeard.has(name) ? "" : "no sound yet");
  };
  return { streams, sources: sources.map((each) => ({ ...each, text: about(each) })) };
}

function switchSource(name, enabled) {
  const body = JSON.stringify({ enabled });
  const headers = { "Content-Type": "application/json" };
  return ask(`v1/sources/${encodeURIComponent(name)}`, { method: "PATCH", headers, body });
}
