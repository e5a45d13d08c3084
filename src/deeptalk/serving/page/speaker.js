/** The loudspeaker: plays an answer while it comes in, and knows what of it has been heard. */

import { RATE } from "./pcm.js";

const NOTHING = () => {};

export class Speaker {
  onHeard = NOTHING; // (id, time on the page's clock in ms): the first audible sample leaves the device
  onDrained = NOTHING; // (id)
  onGap = NOTHING;

  #context = null;
  #node = null;
  #id = null;
  #played = 0;

  /** Make ready to play; must follow a click or a key. */
  async open() {
    this.close();
    const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    this.#context = context;
    const running = context.resume();
    await context.audioWorklet.addModule(new URL("playback-worklet.js", import.meta.url));
    this.#node = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#node.port.onmessage = ({ data }) => data.id === this.#id && this.#take(data);
    this.#node.connect(context.destination);
    await running;
  }

  /** Wake up after the system has put sound to sleep; must follow a click or a key. */
  wake() {
    this.#context?.resume();
  }

  /** Play a further piece of an answer. */
  play(id, samples) {
    if (id !== this.#id) this.#played = 0;
    this.#id = id;
    const copy = samples.slice();
    this.#node?.port.postMessage({ type: "play", id, samples: copy }, [copy.buffer]);
  }

  /** Nothing more will come of the answer. */
  finish() {
    this.#node?.port.postMessage({ type: "finish" });
  }

  /** Be silent; how many milliseconds of the answer were heard. */
  stop() {
    this.#node?.port.postMessage({ type: "stop" });
    const ms = (1000 * this.#played) / RATE - 1000 * this.#delay();
    this.#id = null;
    this.#played = 0;
    return Math.max(0, Math.floor(ms));
  }

  close() {
    this.#context?.close();
    this.#context = this.#node = this.#id = null;
    this.#played = 0;
  }

  #take({ type, id, at, played }) {
    if (type === "heard") this.onHeard(id, this.#clock(at));
    if (type === "position") this.#played = played;
    if (type === "gap") this.onGap();
    if (type === "drained") {
      this.#id = null;
      this.onDrained(id);
    }
  }

  /** Seconds from the worklet to the air. */
  #delay() {
    return this.#context?.outputLatency || this.#context?.baseLatency || 0;
  }

  /** When a sample of this context time is heard, on the page's clock. */
  #clock(at) {
    const { contextTime, performanceTime } = this.#context.getOutputTimestamp?.() ?? {};
    if (performanceTime > 0) return performanceTime + 1000 * (at - contextTime);
    return performance.now() + 1000 * this.#delay();
  }
}
