// The OpenAI Agents SDK of JavaScript: a RealtimeSession over its WebSocket transport.
// The part of `spoken.py` is repeated here: sound is 16-bit mono at 24 kHz.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";

const RATE = 24_000;
const HEADER = 44; // bytes of the WAV files that the driver writes
const LOUD = 300;
const SILENCE = Buffer.alloc(2 * RATE);
const PATIENCE_MS = 120_000;

const [url, turns, folder] = process.argv.slice(2);
const transport = new OpenAIRealtimeWebSocket({
  url: `${url.replace("http", "ws")}/realtime`,
  useInsecureApiKey: true,
});
const session = new RealtimeSession(new RealtimeAgent({ name: "pocket" }), {
  transport,
  tracingDisabled: true,
  config: { audio: { input: { turnDetection: { type: turns } } } },
});

let text = "";
let sound = [];
let told = () => {};
session.on("audio", (event) => sound.push(Buffer.from(event.data)));
session.on("error", (event) => fail(JSON.stringify(event.error)));
session.on("transport_event", (event) => {
  if (event.type === "response.output_audio_transcript.delta") text += event.delta;
  if (event.type === "response.done") told(event.response.status);
});

await session.connect({ apiKey: "none" });
const names = readdirSync(folder).filter((name) => name.endsWith(".wav")).sort();
for (const [turn, name] of names.entries()) {
  const late = setTimeout(() => fail("no answer in time"), PATIENCE_MS);
  const done = new Promise((resolve) => (told = resolve));
  const question = Buffer.concat([readFileSync(join(folder, name)).subarray(HEADER), SILENCE]);
  for (let start = 0; start < question.length; start += RATE / 5) {
    session.sendAudio(new Uint8Array(question.subarray(start, start + RATE / 5)).buffer);
  }
  const completed = (await done) === "completed";
  clearTimeout(late);
  const whole = Buffer.concat(sound);
  console.log(JSON.stringify({ turn, completed, text, seconds_of_audio: secondsWithVoice(whole) }));
  [text, sound] = ["", []];
  await sleep((1000 * whole.length) / (2 * RATE));
}
session.close();

function secondsWithVoice(whole) {
  const window = RATE / 50;
  let loud = 0;
  for (let at = 0; at + window <= whole.length / 2; at += window) {
    let power = 0;
    for (let i = at; i < at + window; i++) power += whole.readInt16LE(2 * i) ** 2;
    if (power > LOUD * LOUD * window) loud += window;
  }
  return Math.round((100 * loud) / RATE) / 100;
}

function fail(words) {
  console.error(words);
  process.exit(1);
}
