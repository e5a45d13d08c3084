/** What went wrong, in plain words, and whether trying again by itself makes sense. */

const failure = (text, isPassing = false) => ({ text, isPassing });

export const KEY_NEEDED = failure("This server asks for a key. Enter it in the settings, then start again.");
export const KEY_WRONG = failure("The server doesn't accept this key. Check it in the settings, then start again.");
export const KEY_UNSENDABLE = failure("This key has characters that a browser can't send. Ask for one of letters and digits.");
export const MICROPHONE_LOST = failure("The microphone is gone. Plug it in, or choose another in the settings, then start again.");
const GONE = failure("The server can't be reached.", true);
const LOST = failure("The connection was lost.", true);
const BUSY = failure("No place is free on the server.", true);
const NOT_READY = failure("The server is starting or going down.", true);
const FOREIGN = failure("The server doesn't accept this page's address. Open the page at the address that the server printed.");

const INSECURE = failure(
  "Browsers give the microphone only to pages on this computer or over https. " +
    "Open the page at http://127.0.0.1 on the computer that serves it, or have the server started with --self-signed."
);
const MICROPHONE = {
  NotAllowedError: "The microphone was not allowed. Allow it for this page in the browser's address bar, then start again.",
  NotFoundError: "No microphone was found. Plug one in, then start again.",
  OverconstrainedError: "The chosen microphone is not there. Choose another in the settings, then start again.",
  NotReadableError: "The microphone is in use by another program, or the system keeps it back. Free it, then start again.",
};
const CLOSED = {
  session_expired: failure("The session has reached its longest time. Start again for a new one."),
  idle: failure("The session was closed because nobody spoke for a while. Start again for a new one."),
  going_away: failure("The server is going down.", true),
  session_limit_reached: BUSY,
  too_many_errors: failure("The server closed the session after too many errors. Start again."),
  output_backlog: failure("The connection is too slow for the answer's sound. Start again."),
};

/** Why the microphone can't be had. */
export function ofMicrophone(error) {
  if (!window.isSecureContext || !navigator.mediaDevices) return INSECURE;
  return failure(MICROPHONE[error.name] ?? `The microphone can't be used (${error.name}).`);
}

/** Why a session has ended or has not come about; asks the server where the close itself doesn't say. */
export async function ofClose({ reason, wasOpen }, base, key) {
  if (CLOSED[reason]) return CLOSED[reason];
  try {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const { status } = await fetch(new URL("v1/models", base), { headers, cache: "no-store" });
    if (status === 401) return key ? KEY_WRONG : KEY_NEEDED;
    if (status === 403) return FOREIGN;
    if (!(await fetch(new URL("ready", base), { cache: "no-store" })).ok) return NOT_READY;
  } catch {
    return GONE;
  }
  return wasOpen ? LOST : BUSY;
}
