/** Sound of any sample rate at another one, block by block: a windowed sinc that keeps its state. */

const CROSSINGS = 16; // zero crossings of the sinc to each side
const PASSED = 0.92; // of the band that both rates have
const STEPS = 256; // of the table for each input sample

export class Resampler {
  constructor(from, to) {
    const cutoff = Math.min(1, to / from) * PASSED;
    this.step = from / to;
    this.half = Math.ceil(CROSSINGS / cutoff);
    this.table = Float32Array.from({ length: this.half * STEPS + 1 }, (_, i) => {
      const x = i / STEPS;
      const angle = Math.PI * cutoff * x;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * x) / this.half);
      return cutoff * window * (x ? Math.sin(angle) / angle : 1);
    });
    this.held = new Float32Array(this.half);
    this.at = this.half; // where the next output sample stands in `held`
  }

  /** The output that a further block of input completes. */
  push(block) {
    const held = new Float32Array(this.held.length + block.length);
    held.set(this.held);
    held.set(block, this.held.length);
    const made = [];
    while (this.at + this.half < held.length) {
      made.push(this.valueAt(held, this.at));
      this.at += this.step;
    }
    const passed = Math.max(0, Math.floor(this.at) - this.half);
    this.held = held.slice(passed);
    this.at -= passed;
    return made;
  }

  valueAt(samples, at) {
    let sum = 0;
    for (let i = Math.ceil(at - this.half); i <= at + this.half; i++) {
      sum += samples[i] * this.table[Math.round(Math.abs(i - at) * STEPS)];
    }
    return sum;
  }
}
