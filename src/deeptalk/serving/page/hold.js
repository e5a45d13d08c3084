/**
 * Hold to talk, or tap to begin and tap again to end: with a pointer, the space bar, Enter, or the click of a
 * screen reader. `talk` has `canHold`, `isHeld`, `press()` and `release()`.
 */

const TAP_MS = 300; // shorter is a tap

export function holdToTalk(button, talk, click) {
  let downAt = null; // when it was pressed, while it is
  let isEnding = false; // this press ends a turn that a tap began
  let isOurs = false; // the click that follows has been dealt with

  const down = () => {
    downAt = performance.now();
    isEnding = talk.isHeld;
    if (isEnding) talk.release();
    else talk.press();
  };
  const up = () => {
    if (downAt === null) return;
    const isTap = performance.now() - downAt < TAP_MS;
    downAt = null;
    if (!isEnding && !isTap) talk.release();
  };

  button.addEventListener("pointerdown", (event) => {
    isOurs = talk.canHold && event.button === 0;
    if (!isOurs) return;
    button.setPointerCapture(event.pointerId);
    down();
  });
  button.addEventListener("lostpointercapture", up);
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  button.addEventListener("click", (event) => {
    if (event.detail > 0 && isOurs) isOurs = false;
    else if (!talk.canHold) click();
    else if (talk.isHeld) talk.release();
    else talk.press();
  });

  const isSpace = (event) =>
    event.code === "Space" &&
    (event.target === button || !event.target.closest?.("button, dialog, input:not([type=radio])"));
  addEventListener("keydown", (event) => {
    if (event.repeat && event.target === button) event.preventDefault(); // or a held Enter clicks on and on
    if (!isSpace(event) || !(talk.canHold || downAt !== null)) return;
    event.preventDefault();
    if (!event.repeat && downAt === null) down();
  });
  addEventListener("keyup", (event) => {
    if (!isSpace(event) || downAt === null) return;
    event.preventDefault(); // or the button is clicked as well
    up();
  });
  addEventListener("blur", up);
}
