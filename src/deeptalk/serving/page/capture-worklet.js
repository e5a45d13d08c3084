/** Hands over the microphone's sound in pieces of 20 ms: `{samples: Int16Array at 24 kHz, level: RMS}`. */

import { Resampler } from "./resampler.js";

const RATE = 24_000;
const PIECE = 480;

class Capture extends AudioWorkletProcessor {
  resampler = new Resampler(sampleRate, RATE);
  piece = new Int16Array(PIECE);
  length = 0;
  power = 0;

  process([[channel]]) {
    if (channel) this.resampler.push(channel).forEach((value) => this.take(value));
    return true;
  }

  take(value) {
    const sample = Math.max(-1, Math.min(1, value));
    this.power += sample * sample;
    this.piece[this.length++] = Math.round(sample * 32_767);
    if (this.length < PIECE) return;
    const { piece } = this;
    this.port.postMessage({ samples: piece, level: Math.sqrt(this.power / PIECE) }, [piece.buffer]);
    this.piece = new Int16Array(PIECE);
    this.length = this.power = 0;
  }
}

registerProcessor("capture", Capture);
