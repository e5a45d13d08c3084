/**
 * A conversation with the server: who speaks when, what was said, how long it took. Knows nothing of the page;
 * `view` is told of every change: `phase(name)`, `problem(text)`, `level(rms)`, `turn(turn)`, `forget(turn)`,
 * `note(text)`, `numbers(numbers)`.
 *
 * Phases: off, connecting, retrying; ready, hearing, thinking, speaking.
 */

import * as failures from "./failures.js";
import { Microphone } from "./microphone.js";
import { Times } from "./numbers.js";
import { RATE, fromBase64, joined, toBase64 } from "./pcm.js";
import { Realtime } from "./realtime.js";
import { Speaker } from "./speaker.js";
import { Tape } from "./tape.js";

const SILENCE_MS = 500; // ends a turn in hands-free
const SHORTEST_MS = 100;
const LONGEST_MS = 29_500; // a turn may have 30 s
const PAUSES = [1, 2, 4, 8, 15, 30]; // seconds before each further attempt to connect
const HARMLESS = new Set(["response_cancel_not_active"]);
const PCM = { type: "audio/pcm", rate: RATE };

export class Talk {
  mode = "push"; // or "free": the server finds the turns
  voice = null;
  device = null;
  key = "";
  isMuted = false;
  turns = [];
  phase = "off";
  numbers = { heard: new Times(), received: new Times(), gaps: 0, roundTripMs: null };

  #base;
  #view;
  #client = null;
  #microphone = new Microphone();
  #speaker = new Speaker();
  #tape = new Tape();
  #isSending = false;
  #nextPiece = () => {};
  #attempts = 0;
  #timer = 0;
  #isClosing = false; // the end of a turn is on its way
  #question = null; // the turn that the user is speaking or has just spoken
  #fromMs = 0; // where it began (push to talk)
  #endedAt = null; // when it ended, until an answer takes it over
  #answer = null;
  #isAbandoned = false; // the answer that was asked for is not wanted any more

  constructor(base, view) {
    this.#base = base;
    this.#view = view;
    this.#microphone.onPiece = (samples, level) => this.#hear(samples, level);
    this.#microphone.onLost = () => this.#fail(failures.MICROPHONE_LOST);
    this.#speaker.onHeard = (id, at) => this.#noteHeard(id, at);
    this.#speaker.onDrained = () => this.#settle();
    this.#speaker.onGap = () => {
      this.numbers.gaps += 1;
      this.#view.numbers(this.numbers);
    };
  }

  get isLive() {
    return ["ready", "hearing", "thinking", "speaking"].includes(this.phase);
  }

  /** Whether there is an answer to stop. */
  get isAnswering() {
    return ["thinking", "speaking"].includes(this.phase);
  }

  /** Whether the button is there to be held. */
  get canHold() {
    return this.isLive && this.mode === "push";
  }

  get isHeld() {
    return this.canHold && this.phase === "hearing";
  }

  // the session

  /** Open microphone, loudspeaker and session; must follow a click or a key. */
  async start() {
    clearTimeout(this.#timer);
    this.#attempts = 0;
    this.#view.problem("");
    this.#enter("connecting");
    try {
      await this.#speaker.open();
      await this.#microphone.open(this.device);
    } catch (error) {
      return this.#fail(failures.ofMicrophone(error));
    }
    if (this.phase !== "connecting") return this.end(); // the microphone went away meanwhile
    this.#connect();
  }

  /** Leave the session and give the microphone back. */
  end() {
    this.#leave();
    this.#client?.close();
    this.#client = null;
    this.#microphone.close();
    this.#speaker.close();
    this.#view.level(0);
    this.#enter("off");
  }

  /** Bring the session in line with mode and voice. */
  configure() {
    const isFree = this.mode === "free";
    if (this.phase === "hearing") this.discard();
    this.#isSending = isFree && !this.isMuted;
    const detection = { type: "server_vad", silence_duration_ms: SILENCE_MS };
    const input = { format: PCM, transcription: { model: "default" }, turn_detection: isFree ? detection : null };
    const output = this.voice ? { format: PCM, voice: this.voice } : { format: PCM };
    const askedAt = performance.now();
    this.#client?.on("session.updated", () => {
      this.numbers.roundTripMs = performance.now() - askedAt;
      this.#view.numbers(this.numbers);
      if (!this.isLive) this.#enter("ready");
    });
    this.#client?.send("session.update", {
      session: { type: "realtime", output_modalities: ["audio"], audio: { input, output } },
    });
  }

  /** Take the microphone that is chosen now. */
  async changeMicrophone() {
    if (!this.isLive) return;
    try {
      await this.#microphone.open(this.device);
    } catch (error) {
      this.#fail(failures.ofMicrophone(error));
    }
  }

  #connect() {
    const url = new URL("v1/realtime", this.#base);
    url.protocol = url.protocol.replace("http", "ws");
    try {
      this.#client = new Realtime(url, this.key);
    } catch {
      return this.#fail(failures.KEY_UNSENDABLE);
    }
    this.#client.onClose = (closed) => this.#lose(closed);
    this.#client
      .on("session.created", () => this.#open())
      .on("input_audio_buffer.speech_started", (event) => this.#beginFound(event))
      .on("input_audio_buffer.speech_stopped", (event) => this.#endFound(event))
      .on("input_audio_buffer.committed", (event) => this.#question && (this.#question.id = event.item_id))
      .on("conversation.item.input_audio_transcription.delta", (event) => this.#write(event.item_id, event.delta))
      .on("conversation.item.input_audio_transcription.completed", (event) =>
        this.#write(event.item_id, event.transcript, { isWhole: true })
      )
      .on("conversation.item.retrieved", (event) => this.#strike(event.item))
      .on("response.created", (event) => this.#beginAnswer(event.response.id))
      .on("response.output_item.added", (event) => this.#answer && (this.#answer.turn.id = event.item.id))
      .on("response.output_audio_transcript.delta", (event) => this.#addWords(event.delta))
      .on("response.output_audio.delta", (event) => this.#addSound(fromBase64(event.delta)))
      .on("response.output_audio.done", () => this.#answer?.isOver || this.#speaker.finish())
      .on("response.done", (event) => this.#endAnswer(event.response))
      .on("error", (event) => this.#refuse(event.error));
  }

  #open() {
    this.#attempts = 0;
    this.#tape.restart(); // the server, too, counts from here
    this.#view.problem("");
    if (this.turns.length) this.#view.note("A new session: what was said above is forgotten.");
    this.configure();
  }

  /** The server did not take an event of ours. */
  #refuse({ code, message }) {
    if (HARMLESS.has(code)) return;
    this.#view.problem(`The server said: ${message}`);
    if (this.phase === "thinking" && !this.#answer) this.#enter("ready");
  }

  async #lose(closed) {
    const client = this.#client;
    this.#leave();
    this.#enter("connecting");
    const failure = await failures.ofClose(closed, this.#base, this.key);
    if (client !== this.#client || this.phase !== "connecting") return; // ended or started anew meanwhile
    if (!failure.isPassing || this.#attempts >= PAUSES.length) return this.#fail(failure);
    const pause = PAUSES[this.#attempts++];
    this.#view.problem(`${failure.text} Trying again in ${pause} s.`);
    this.#enter("retrying");
    this.#timer = setTimeout(() => {
      this.#enter("connecting");
      this.#connect();
    }, 1000 * pause);
  }

  /** Stop what goes on in a session that ends. */
  #leave() {
    clearTimeout(this.#timer);
    this.#cut();
    this.#dropQuestion();
    this.#isSending = this.#isClosing = this.#isAbandoned = false;
    this.#endedAt = null;
  }

  #fail({ text }) {
    this.end();
    this.#view.problem(text);
  }

  #enter(phase) {
    this.phase = phase;
    this.#view.phase(phase);
  }

  // the user's turns

  /** Begin a turn (push to talk). */
  press() {
    if (!this.isLive || this.phase === "hearing" || this.#isClosing) return;
    this.#view.problem("");
    this.#microphone.wake();
    this.#speaker.wake();
    this.interrupt();
    this.#fromMs = this.#tape.ms;
    this.#isSending = true;
    this.#question = this.#newTurn("user");
    this.#enter("hearing");
    this.#timer = setTimeout(() => this.release(), LONGEST_MS);
  }

  /** End the turn and ask for an answer. */
  async release() {
    if (!this.isHeld) return;
    clearTimeout(this.#timer);
    this.#endedAt = performance.now();
    this.#answer = null;
    this.#isClosing = true;
    this.#enter("thinking");
    await this.#tail();
    if (!this.#isClosing) return; // thrown away meanwhile
    this.#isClosing = this.#isSending = false;
    if (this.#tape.ms - this.#fromMs < SHORTEST_MS) {
      this.#view.problem("That was too short: hold the button, or tap it once to begin and once more to send.");
      return this.discard();
    }
    this.#closeQuestion(this.#fromMs, this.#tape.ms);
    this.#client?.send("input_audio_buffer.commit");
    this.#client?.send("response.create");
  }

  /** Throw away what the user is saying. */
  discard() {
    clearTimeout(this.#timer);
    this.#isClosing = false;
    this.#isSending = this.mode === "free" && !this.isMuted;
    this.#client?.send("input_audio_buffer.clear");
    this.#dropQuestion();
    this.#endedAt = null;
    this.#enter("ready");
  }

  /** Listen on or not (hands-free). */
  mute(isMuted) {
    this.isMuted = isMuted;
    this.#isSending = this.mode === "free" && !isMuted;
    if (isMuted) {
      if (this.phase === "hearing") this.discard();
      else this.#client?.send("input_audio_buffer.clear");
    }
    this.#view.phase(this.phase);
  }

  #hear(samples, level) {
    this.#view.level(level);
    if (this.#isSending) {
      this.#tape.push(samples);
      this.#client?.send("input_audio_buffer.append", { audio: toBase64(samples) });
    }
    this.#nextPiece();
  }

  /** Wait for the piece that the microphone is at. */
  #tail() {
    return new Promise((resolve) => {
      this.#nextPiece = resolve;
      setTimeout(resolve, 100);
    });
  }

  #beginFound({ item_id: id, audio_start_ms: startMs }) {
    this.#stopPlaying();
    this.#question = Object.assign(this.#newTurn("user"), { id, startMs });
    this.#enter("hearing");
  }

  #endFound({ audio_end_ms: endMs }) {
    if (!this.#question?.isOpen) return;
    this.#closeQuestion(this.#question.startMs, endMs);
    this.#endedAt = Math.min(performance.now(), this.#tape.timeOf(endMs - SILENCE_MS));
    this.#answer = null;
    this.#enter("thinking");
  }

  #closeQuestion(fromMs, toMs) {
    Object.assign(this.#question, { pieces: [this.#tape.between(fromMs, toMs)], isOpen: false });
    this.#view.turn(this.#question);
  }

  /** Forget a turn that is not complete. */
  #dropQuestion() {
    if (this.#question?.isOpen) this.#drop(this.#question);
    this.#question = null;
  }

  /** The server has written down what the user said. */
  #write(id, text, { isWhole = false } = {}) {
    const turn = this.turns.find((each) => each.id === id);
    if (!turn) return;
    turn.text = isWhole ? text : turn.text + text;
    this.#view.turn(turn);
  }

  // answers

  /** Stop the answer that is made or heard. */
  interrupt() {
    if (this.#isClosing) return this.discard();
    if (!this.isAnswering) return;
    this.#isAbandoned = !this.#answer;
    if (!this.#answer?.isDone) this.#client?.send("response.cancel");
    this.#stopPlaying();
    this.#enter("ready");
  }

  /** Be silent, and have the server forget what was not heard. */
  #stopPlaying() {
    const answer = this.#cut();
    if (!answer?.turn.id) return;
    this.#client?.send("conversation.item.truncate", {
      item_id: answer.turn.id,
      content_index: 0,
      audio_end_ms: answer.heardMs,
    });
    this.#client?.send("conversation.item.retrieve", { item_id: answer.turn.id });
  }

  /** End the answer here and now; the answer, where there was one. */
  #cut() {
    const answer = this.#answer;
    if (!answer || answer.isOver) return null;
    answer.isOver = true;
    answer.heardMs = this.#speaker.stop();
    answer.turn.pieces = [joined(answer.turn.pieces).slice(0, Math.round((answer.heardMs * RATE) / 1000))];
    answer.turn.isOpen = false;
    this.#view.turn(answer.turn);
    return answer;
  }

  #beginAnswer(id) {
    const turn = this.#newTurn("assistant");
    this.#answer = { id, turn, endedAt: this.#endedAt, receivedAt: null, isDone: false, isOver: this.#isAbandoned };
    this.#endedAt = null;
    this.#isAbandoned = false;
    if (this.phase === "ready") this.#enter("thinking");
  }

  #addWords(words) {
    const answer = this.#answer;
    if (!answer || answer.isOver) return;
    answer.turn.text += words;
    this.#view.turn(answer.turn);
  }

  #addSound(samples) {
    const answer = this.#answer;
    if (!answer || answer.isOver) return;
    if (!answer.receivedAt) {
      answer.receivedAt = performance.now();
      this.#time(this.numbers.received, answer, answer.receivedAt);
    }
    answer.turn.pieces.push(samples);
    this.#speaker.play(answer.id, samples);
  }

  #noteHeard(id, at) {
    const answer = this.#answer;
    if (answer?.id !== id) return;
    this.#time(this.numbers.heard, answer, at);
    this.#enter("speaking");
  }

  /** Note how long it took from the end of the user's turn. */
  #time(times, answer, at) {
    if (answer.endedAt === null) return;
    times.add(at - answer.endedAt);
    answer.turn.firstSoundMs = Math.round(at - answer.endedAt);
    this.#view.numbers(this.numbers);
  }

  #endAnswer(response) {
    const answer = this.#answer;
    if (answer?.id !== response.id) return;
    answer.isDone = true;
    const error = response.status_details?.error;
    if (response.status === "failed") {
      this.#view.problem(`The server could not answer: ${error?.message ?? "it gave no reason"}`);
    }
    if (!answer.receivedAt) this.#settle();
    if (!answer.turn.text && !answer.receivedAt) this.#drop(answer.turn);
  }

  /** The answer has been heard to its end. */
  #settle() {
    const answer = this.#answer;
    if (!answer || answer.isOver) return;
    answer.isOver = true;
    answer.turn.isOpen = false;
    this.#view.turn(answer.turn);
    if (this.phase !== "hearing") this.#enter("ready");
  }

  /** Mark what the server doesn't count as heard. */
  #strike({ id, content }) {
    const turn = this.turns.find((each) => each.id === id);
    const heard = content?.[0]?.transcript ?? "";
    if (!turn || !turn.text.trimStart().startsWith(heard)) return;
    const text = turn.text.trimStart();
    Object.assign(turn, { text: heard, unheard: text.slice(heard.length) });
    this.#view.turn(turn);
  }

  #newTurn(role) {
    const turn = { role, id: null, text: "", unheard: "", pieces: [], isOpen: true, firstSoundMs: null };
    this.turns.push(turn);
    this.#view.turn(turn);
    return turn;
  }

  #drop(turn) {
    this.turns = this.turns.filter((each) => each !== turn);
    this.#view.forget(turn);
  }
}
