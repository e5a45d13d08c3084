/** The conversation as files: its sound, turn after turn, and its words with the times. */

import { RATE, joined, wav } from "./pcm.js";

export function saveSound(turns) {
  save("deeptalk.wav", wav(joined(turns.flatMap((turn) => turn.pieces))));
}

export function saveWords(turns) {
  const plain = turns.map(({ role, text, unheard, pieces, firstSoundMs }) => ({
    role,
    text,
    unheard,
    seconds: joined(pieces).length / RATE,
    first_sound_ms: firstSoundMs,
  }));
  save("deeptalk.json", new Blob([JSON.stringify({ turns: plain }, null, 2)], { type: "application/json" }));
}

function save(name, blob) {
  const link = document.createElement("a");
  link.download = name;
  link.href = URL.createObjectURL(blob);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
