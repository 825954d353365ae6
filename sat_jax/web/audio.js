// The microphone, at the device's own rate.

const PROBLEMS = {
  NotAllowedError: "The microphone is blocked: allow it for this page in the browser.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "The microphone cannot be opened: another program may use it.",
  OverconstrainedError: "This microphone has gone: choose another one.",
};

/** Whether the browser gives this page a microphone; it does so for HTTPS and localhost only. */
export const canListen = () => window.isSecureContext && Boolean(navigator.mediaDevices);

/**
 * Opens a microphone.
 * @param {string} deviceId "" for the default one
 * @param {(samples: Float32Array, rate: number) => void} onSamples receives mono samples
 * @param {() => void} onLost is called if the device goes away
 * @returns {Promise<{rate: number, close: () => Promise<void>}>}
 */
export async function openMicrophone(deviceId, onSamples, onLost) {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  if (deviceId) audio.deviceId = { exact: deviceId };
  const stream = await navigator.mediaDevices.getUserMedia({ audio }).catch((error) => {
    throw new Error(PROBLEMS[error.name] ?? error.message);
  });
  const context = new AudioContext();
  const close = async () => {
    stream.getTracks().forEach((track) => track.stop());
    if (context.state !== "closed") await context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("./capture.js", import.meta.url).href);
  } catch (error) {
    await close();
    throw error;
  }
  const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  node.port.onmessage = ({ data }) => onSamples(data, context.sampleRate);
  context.createMediaStreamSource(stream).connect(node);
  stream.getAudioTracks()[0].addEventListener("ended", onLost);
  return { rate: context.sampleRate, close };
}

/** Returns the microphones; their names are known only after permission. */
export async function listMicrophones() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === "audioinput");
}
