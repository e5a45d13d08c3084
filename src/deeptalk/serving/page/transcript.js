/** The conversation as it is seen: one element for each turn. */

import { RATE, joined, peaks } from "./pcm.js";

const BARS = 36;

export class Transcript {
  #log;
  #elements = new Map();

  constructor(log) {
    this.#log = log;
    new ResizeObserver(() => this.#follow()).observe(log);
  }

  /** Show a turn as it is now. */
  show(turn) {
    const element = this.#elements.get(turn) ?? this.#add(turn);
    element.setAttribute("aria-busy", turn.isOpen); // a screen reader waits for the end
    const words = element.querySelector(".words");
    words.replaceChildren(turn.text || placeholder(turn));
    if (turn.unheard) words.append(made("s", "", turn.unheard));
    if (turn.role === "user" && !turn.isOpen && !element.querySelector("svg")) {
      element.append(waveform(joined(turn.pieces)));
    }
    this.#follow();
  }

  forget(turn) {
    this.#elements.get(turn)?.remove();
    this.#elements.delete(turn);
  }

  note(text) {
    this.#log.append(made("p", "note", text));
    this.#follow();
  }

  #add(turn) {
    const element = made("div", `turn ${turn.role}`);
    element.append(made("span", "hidden", turn.role === "user" ? "You: " : "DeepTalk: "), made("p", "words"));
    this.#log.append(element);
    this.#elements.set(turn, element);
    return element;
  }

  #follow() {
    if (!this.#log.querySelector(".turn, .note")) return; // the welcome is read from its beginning
    this.#log.scrollTop = this.#log.scrollHeight;
  }
}

function placeholder({ role, isOpen, pieces }) {
  if (role === "assistant") return isOpen ? "…" : "";
  if (isOpen) return "Listening…";
  return `Spoken, ${(joined(pieces).length / RATE).toFixed(1)} s`;
}

function made(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

/** A picture of a turn's loudness. */
function waveform(samples) {
  const make = (tag, values) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(values).forEach(([name, value]) => element.setAttribute(name, value));
    return element;
  };
  const picture = make("svg", { viewBox: `0 0 ${BARS * 4} 24`, "aria-hidden": true });
  const heights = peaks(samples, BARS);
  const most = Math.max(...heights, 0.01);
  heights.forEach((peak, i) => {
    const height = 2 + (20 * peak) / most;
    picture.append(make("rect", { x: i * 4, y: 12 - height / 2, width: 2.4, height, rx: 1.2 }));
  });
  return picture;
}
