/** The microphone: 20 ms at a time, as long as it is open. */

const NOTHING = () => {};

export class Microphone {
  onPiece = NOTHING; // (samples, level)
  onLost = NOTHING;

  #stream = null;
  #context = null;

  /** Ask for the microphone; throws what the browser throws. Must follow a click or a key. */
  async open(deviceId) {
    this.close();
    const device = deviceId ? { deviceId: { exact: deviceId } } : {};
    const voice = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { ...voice, ...device } });
    this.#stream = stream;
    stream.getAudioTracks()[0].addEventListener("ended", () => this.#stream === stream && this.onLost());
    const context = new AudioContext({ latencyHint: "interactive" });
    this.#context = context;
    await context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    node.port.onmessage = ({ data }) => this.#context === context && this.onPiece(data.samples, data.level);
    context.createMediaStreamSource(stream).connect(node);
    node.connect(context.destination); // it is silent; without a way out some browsers leave it asleep
    await context.resume();
  }

  /** Wake up after the system has put sound to sleep; must follow a click or a key. */
  wake() {
    this.#context?.resume();
  }

  close() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#context?.close();
    this.#stream = this.#context = null;
  }

  /** The microphones there are; without names before one was allowed. */
  static async list() {
    const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    return devices.filter((device) => device.kind === "audioinput" && device.deviceId);
  }
}
