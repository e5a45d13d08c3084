/** The last sound that was sent, by its place in the session and the time at which it was spoken. */

import { RATE, joined } from "./pcm.js";

const KEPT = 40 * RATE;

export class Tape {
  #pieces = [];
  #start = 0; // samples that are no longer kept
  #end = 0;
  #endedAt = 0; // time on the page's clock

  /** Count from here. */
  restart() {
    this.#pieces = [];
    this.#start = this.#end = 0;
  }

  push(samples) {
    this.#pieces.push(samples);
    this.#end += samples.length;
    this.#endedAt = performance.now();
    while (this.#end - this.#start - this.#pieces[0].length > KEPT) {
      this.#start += this.#pieces.shift().length;
    }
  }

  get ms() {
    return (1000 * this.#end) / RATE;
  }

  /** The sound between two places, in milliseconds. */
  between(fromMs, toMs) {
    const place = (ms) => Math.max(0, Math.round((ms * RATE) / 1000) - this.#start);
    return joined(this.#pieces).slice(place(fromMs), place(toMs));
  }

  /** When what stands at a place was spoken. */
  timeOf(ms) {
    return this.#endedAt - (this.ms - ms);
  }
}
