/**
 * Plays answers, one after the other, and tells how far it has come.
 *
 * In: `play {id, samples}`, `finish`, `stop`. Out: `heard {at}` (context time of the first audible sample),
 * `position {played}` in samples, `gap` (nothing came in time), `drained` (all of a finished answer was played).
 */

const CUSHION = 0.08 * sampleRate; // what must be there before an answer begins, or goes on after a gap
const AUDIBLE = 0.004; // about -48 dB
const BLOCKS_PER_REPORT = 4;

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.begin(null);
    this.port.onmessage = ({ data }) => this[data.type](data);
  }

  begin(id) {
    Object.assign(this, { id, queue: [], at: 0, held: 0, played: 0, blocks: 0 });
    this.isFlowing = this.isFinished = this.isHeard = false;
  }

  play({ id, samples }) {
    if (id !== this.id) this.begin(id);
    this.queue.push(samples);
    this.held += samples.length;
  }

  finish() {
    this.isFinished = true;
  }

  stop() {
    this.begin(null);
  }

  process(inputs, [[out]]) {
    if (this.id === null) return true;
    this.isFlowing ||= this.isFinished || this.held >= CUSHION;
    if (this.isFlowing) this.fill(out);
    return true;
  }

  fill(out) {
    let length = 0;
    while (length < out.length && this.held) {
      const sample = this.next() / 32_768;
      if (!this.isHeard && Math.abs(sample) > AUDIBLE) {
        this.isHeard = true;
        this.tell("heard", { at: currentTime + length / sampleRate });
      }
      out[length++] = sample;
    }
    this.played += length;
    if (this.blocks++ % BLOCKS_PER_REPORT === 0) this.tell("position", { played: this.played });
    if (this.held) return;
    if (this.isFinished) {
      this.tell("position", { played: this.played });
      this.tell("drained");
      this.begin(null);
    } else if (length < out.length) {
      this.tell("gap");
      this.isFlowing = false;
    }
  }

  next() {
    const sample = this.queue[0][this.at++];
    this.held -= 1;
    if (this.at === this.queue[0].length) {
      this.queue.shift();
      this.at = 0;
    }
    return sample;
  }

  tell(type, fields = {}) {
    this.port.postMessage({ type, id: this.id, ...fields });
  }
}

registerProcessor("playback", Playback);
