"""A served pocket model, and a headless Chromium whose microphone plays a sound file."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep

import numpy as np
import soundfile
from playwright.sync_api import Browser, Page, Playwright

QUESTIONS = sorted((Path(__file__).parents[2] / "examples" / "questions").glob("*.wav"))
QUIET_SECONDS = 3.0
"""Silence before the first question: the session is open and the button is held by then."""


def find_chromium(playwright: Playwright) -> str | None:
    """The program of a Chromium: $CHROMIUM, the system's, or Playwright's own; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    own = playwright.chromium.executable_path
    return found or (own if Path(own).exists() else None)


def launch(playwright: Playwright, program: str, microphone: Path) -> Browser:
    """A browser that allows the microphone, which plays the file once and is silent then."""
    return playwright.chromium.launch(
        executable_path=program,
        args=[
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={microphone}%noloop",
        ],
    )


def write_microphone(path: Path, questions: Sequence[Path], *, pause_seconds: float = 0.0) -> None:
    """Some questions with silence around them as one file."""
    parts = [np.zeros(int(16_000 * QUIET_SECONDS))]
    for question in questions:
        samples, rate = soundfile.read(question)
        assert rate == 16_000
        parts += [samples, np.zeros(int(16_000 * pause_seconds))]
    soundfile.write(path, np.concatenate([*parts, np.zeros(16_000 * 30)]), 16_000, subtype="PCM_16")


@contextmanager
def served() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``deeptalk serve`` on a free port, with input transcripts: its page's address, and the process."""
    command = [sys.executable, "-m", "deeptalk", "serve", "--port", "0", "--input-transcripts", "model"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        printed = process.stdout.readline()
        found = re.search(r"in a browser: (\S+)", printed)
        assert found, printed
        while not _is_ready(found[1]):
            assert process.poll() is None
            sleep(0.1)
        yield found[1], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "ready") as answer:
            return answer.status == 200
    except urllib.error.URLError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        return False


def wait_for(page: Page, phase: str) -> None:
    """Wait until the conversation is in a phase."""
    page.wait_for_selector(f'body[data-phase="{phase}"]', timeout=120_000)
