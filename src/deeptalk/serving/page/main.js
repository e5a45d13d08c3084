/** The page: buttons in, what happens out. */

import { holdToTalk } from "./hold.js";
import { KEY_NEEDED, KEY_WRONG, ofMicrophone } from "./failures.js";
import { Microphone } from "./microphone.js";
import { saveSound, saveWords } from "./save.js";
import { Talk } from "./talk.js";
import { Transcript } from "./transcript.js";

const $ = (id) => document.getElementById(id);
const KEY_PROBLEMS = [KEY_NEEDED.text, KEY_WRONG.text];
const LABELS = { off: "Start", connecting: "Wait", retrying: "Try now", hearing: "Send" };
const STATUS = {
  off: "Press Start and allow the microphone.",
  connecting: "Connecting…",
  retrying: "Not connected.",
  hearing: "Listening…",
  thinking: "Thinking…",
};
const STATUS_PUSH = {
  ready: "Hold the button or the space bar and speak, or tap to begin and to end.",
  hearing: "Listening… Let go or tap to send; Escape to forget.",
  speaking: "Answering. Hold the button to interrupt.",
};
const STATUS_FREE = {
  ready: "Just speak. Silence ends your turn.",
  speaking: "Answering. Speak up to interrupt.",
};

const transcript = new Transcript($("log"));
const talk = new Talk(document.baseURI, {
  phase: showPhase,
  problem: showProblem,
  level: showLevel,
  numbers: showNumbers,
  note: (text) => transcript.note(text),
  turn: (turn) => {
    $("welcome").hidden = true;
    transcript.show(turn);
  },
  forget: (turn) => transcript.forget(turn),
});

// what is shown

function showPhase(phase) {
  const isFree = talk.mode === "free" && talk.isLive;
  document.body.dataset.phase = phase;
  $("talk-label").textContent = isFree ? (talk.isMuted ? "Unmute" : "Mute") : (LABELS[phase] ?? "Talk");
  $("talk").setAttribute("aria-disabled", phase === "connecting");
  $("stop").disabled = !talk.isAnswering;
  $("end").disabled = !talk.isLive && phase !== "retrying";
  const special = talk.mode === "free" ? STATUS_FREE : STATUS_PUSH;
  const isSilenced = isFree && talk.isMuted && phase === "ready";
  $("status").textContent = isSilenced ? "Muted." : (special[phase] ?? STATUS[phase]);
}

function showProblem(text) {
  $("problem").textContent = text;
  if (KEY_PROBLEMS.includes(text)) openSettings($("key"));
}

let shownAt = 0;

function showLevel(level) {
  const share = level > 0 ? Math.max(0, Math.min(1, 1 + (20 * Math.log10(level)) / 60)) : 0; // -60 to 0 dB
  document.body.style.setProperty("--level", share.toFixed(3));
  if (share && performance.now() - shownAt < 500) return;
  shownAt = performance.now();
  $("level").setAttribute("aria-valuenow", Math.round(100 * share));
}

function showNumbers({ heard, received, gaps, roundTripMs }) {
  const seconds = (ms) => (ms / 1000).toFixed(2);
  for (const [id, times] of Object.entries({ heard, received })) {
    if (!times.summary) continue;
    const { last, p50, p95 } = times.summary;
    [last, p50, p95].forEach((ms, i) => ($(id).cells[i + 1].textContent = seconds(ms)));
    if (id === "heard") $("in-short").textContent = `${seconds(last)} s · p50 ${seconds(p50)} · p95 ${seconds(p95)}`;
  }
  $("gaps").textContent = gaps;
  $("round-trip").textContent = roundTripMs === null ? "–" : `${Math.round(roundTripMs)} ms`;
}

async function showMicrophones() {
  const devices = await Microphone.list();
  const options = devices.map((device, i) => new Option(device.label || `Microphone ${i + 1}`, device.deviceId));
  $("microphones").replaceChildren(new Option("The browser’s choice", ""), ...options);
  $("microphones").value = talk.device ?? "";
}

async function showServer() {
  const about = await fetch(new URL("static/about.json", document.baseURI)).then((answer) => answer.json());
  $("model").textContent = about.model;
  $("voices").replaceChildren(...about.voices.map((voice) => new Option(voice, voice)));
  $("voices").disabled = about.voices.length < 2;
  talk.voice = about.voices[0] ?? null;
}

function openSettings(focused = $("microphones")) {
  const isEmpty = !talk.turns.length;
  $("save-sound").disabled = $("save-words").disabled = isEmpty;
  if (!$("settings").open) $("settings").showModal();
  focused.focus();
}

// what is pressed

async function click() {
  if (talk.phase === "off" || talk.phase === "retrying") {
    await talk.start();
    showMicrophones();
  } else if (talk.isLive && talk.mode === "free") {
    talk.mute(!talk.isMuted);
  }
}

holdToTalk($("talk"), talk, click);
$("stop").addEventListener("click", () => {
  talk.interrupt();
  $("talk").focus();
});
$("end").addEventListener("click", () => {
  talk.end();
  $("talk").focus();
});
$("modes").addEventListener("change", ({ target }) => {
  talk.mode = target.value;
  if (talk.isLive) talk.configure();
  showPhase(talk.phase);
});
$("microphones").addEventListener("change", ({ target }) => {
  talk.device = target.value || null;
  talk.changeMicrophone();
});
$("voices").addEventListener("change", ({ target }) => {
  talk.voice = target.value;
  if (talk.isLive) talk.configure();
});
$("key").addEventListener("change", ({ target }) => (talk.key = target.value.trim()));
$("open-settings").addEventListener("click", () => openSettings());
$("open-numbers").addEventListener("click", () => $("numbers").showModal());
for (const button of document.querySelectorAll(".close")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
$("save-sound").addEventListener("click", () => saveSound(talk.turns));
$("save-words").addEventListener("click", () => saveWords(talk.turns));
addEventListener("keydown", ({ key }) => {
  if (key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (talk.isHeld) talk.discard();
  else talk.interrupt();
});
addEventListener("pagehide", () => talk.end());

showPhase("off");
showServer().catch(() => showProblem("The server can’t be reached. Load the page again."));
if (navigator.mediaDevices) {
  navigator.mediaDevices.addEventListener("devicechange", showMicrophones);
  showMicrophones();
} else {
  showProblem(ofMicrophone({}).text);
}
