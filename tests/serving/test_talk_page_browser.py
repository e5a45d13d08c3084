"""The talk page in a headless Chromium with a fake microphone: `make test-page`."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from websockets.sync.client import connect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

sync_api = pytest.importorskip("playwright.sync_api", reason="needs pip install 'deeptalk[page]'")
from browser import QUESTIONS, find_chromium, launch, served, wait_for, write_microphone  # noqa: E402

QUESTION = QUESTIONS[1]

pytestmark = [pytest.mark.slow, pytest.mark.weights]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with served() as running:
        yield running


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microphone plays."""
    path = tmp_path_factory.mktemp("microphone") / "question.wav"
    write_microphone(path, [QUESTION])
    return path


@pytest.fixture(scope="module")
def browser(microphone: Path) -> Iterator["Browser"]:
    with sync_api.sync_playwright() as playwright:
        program = find_chromium(playwright)
        if program is None:
            pytest.skip("needs a Chromium: apt-get install chromium, or playwright install chromium")
        browser = launch(playwright, program, microphone)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser", server: tuple[str, subprocess.Popen[str]]) -> Iterator["Page"]:
    """The page, freshly loaded; at the end the browser must have had nothing to complain of."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    complaints: list[str] = []

    def note(message: "ConsoleMessage") -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server[0])
    yield page
    context.close()
    unexpected = [text for text in complaints if "WebSocket" not in text and "Failed to load" not in text]
    assert unexpected == []


def answer_of(page: "Page") -> str:
    """The last answer, once it has been heard to its end."""
    page.wait_for_selector('.assistant[aria-busy="false"]', timeout=180_000)
    return page.locator(".assistant .words").last.inner_text()


def until_asked(page: "Page") -> None:
    """Wait until the level has shown the question, and then half a second of silence."""
    page.evaluate("""() => new Promise((resolve, reject) => {
        setTimeout(() => reject(new Error("the question was not heard")), 60_000);
        let heardAt = Infinity;
        setInterval(() => {
            const isLoud = Number(document.body.style.getPropertyValue("--level")) > 0.4;
            if (isLoud) heardAt = performance.now();
            if (performance.now() - heardAt > 500) resolve();
        }, 20);
    })""")


def saved(page: "Page", name: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def assert_heard(page: "Page", folder: Path) -> None:
    """Question and answer are there in words and in sound, and the answer's time is shown."""
    words = answer_of(page)
    assert re.search(r"\w\w", words)
    for row in ("heard", "received"):
        assert float(page.locator(f"#{row} td").nth(0).inner_text()) > 0
    assert "p95" in page.locator("#in-short").inner_text()
    sync_api.expect(page.locator(".user .words")).not_to_contain_text("Spoken", timeout=60_000)
    page.get_by_role("button", name="Settings").click()
    told = json.loads(saved(page, "Save the words", folder).read_text())
    samples, rate = soundfile.read(saved(page, "Save the sound", folder))
    page.keyboard.press("Escape")
    user, answer = told["turns"]
    assert (user["role"], answer["role"]) == ("user", "assistant")
    assert re.search(r"\w\w", user["text"])
    assert answer["text"].strip() == words.strip()
    assert answer["first_sound_ms"] > 0
    assert rate == 24_000
    assert len(samples) / rate == pytest.approx(user["seconds"] + answer["seconds"], abs=0.01)
    for part in np.split(samples, [round(24_000 * user["seconds"])]):
        assert np.abs(part).max() > 0.02


def test_push_to_talk_with_the_keyboard_alone(page: "Page", tmp_path: Path):
    page.get_by_role("button", name="Start").focus()
    page.keyboard.press("Enter")
    wait_for(page, "ready")
    page.keyboard.down("Space")
    wait_for(page, "hearing")
    until_asked(page)
    page.keyboard.up("Space")
    assert_heard(page, tmp_path)
    wait_for(page, "ready")
    assert page.get_by_role("alert").inner_text() == ""
    page.get_by_role("button", name="End").click()
    assert page.get_by_role("button", name="Start").evaluate("button => button === document.activeElement")


def test_a_tap_begins_a_tap_sends_and_escape_stops_the_answer(page: "Page"):
    """Of an answer that was stopped, the words that were not heard are struck out."""
    page.get_by_role("button", name="Start").click()
    wait_for(page, "ready")
    page.get_by_role("button", name="Talk").click()
    wait_for(page, "hearing")
    until_asked(page)
    page.get_by_role("button", name="Send").click()
    wait_for(page, "speaking")
    said = page.locator(".assistant .words").inner_text()
    page.keyboard.press("Escape")
    sync_api.expect(page.locator(".assistant s")).to_contain_text(re.compile(r"\w"))
    assert page.locator(".assistant .words").inner_text().startswith(said.strip()[:3])
    assert page.locator("body").get_attribute("data-phase") == "ready"
    assert page.get_by_role("alert").inner_text() == ""


def test_hands_free_finds_the_turn_by_itself(page: "Page", tmp_path: Path):
    page.get_by_text("Hands-free", exact=True).click()
    page.get_by_role("button", name="Start").click()
    wait_for(page, "ready")
    assert_heard(page, tmp_path)
    page.get_by_role("button", name="Mute").click()
    assert page.get_by_role("status").inner_text() == "Muted."


@pytest.mark.parametrize("size", [(320, 568), (390, 844), (844, 390), (1100, 844)])
def test_nothing_is_cut_off_on_any_screen(page: "Page", size: tuple[int, int]):
    """Not the controls, nor the beginning of the welcome; and a phone on its side has room for words."""
    width, height = size
    page.set_viewport_size({"width": width, "height": height})
    shown = "button:visible, #modes, #status, #welcome h2"
    for box in [each.bounding_box() for each in page.locator(shown).all()]:
        assert box is not None
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
    assert page.evaluate("document.documentElement.scrollWidth") == width
    log = page.get_by_role("log").bounding_box()
    assert log is not None
    assert log["height"] > 150


def test_the_pages_arithmetic(page: "Page"):
    """Percentiles, and sound at another sample rate: a tone stays itself, one above the band is gone."""
    median, p95, tone_error, num_made, leaked = page.evaluate("""async () => {
        const { percentile } = await import("/static/numbers.js");
        const { Resampler } = await import("/static/resampler.js");
        const tone = (hertz, rate, at) => Math.sin((2 * Math.PI * hertz * at) / rate);
        const made = (hertz, rate) => {
            const resampler = new Resampler(rate, 24000);
            const samples = Float32Array.from({ length: 12800 }, (_, i) => tone(hertz, rate, i));
            return Array.from({ length: 100 }, (_, i) =>
                resampler.push(samples.subarray(128 * i, 128 * (i + 1)))
            ).flat();
        };
        const heard = made(1000, 44100);
        const wrong = heard.map((value, i) => Math.abs(value - tone(1000, 24000, i))).slice(100);
        return [
            percentile([5, 1, 3], 50),
            percentile([...Array(20).keys()], 95),
            Math.max(...wrong),
            heard.length,
            Math.max(...made(15000, 48000).slice(100).map(Math.abs)),
        ];
    }""")
    assert (median, p95) == (3, 18)
    assert tone_error < 0.002
    assert num_made == pytest.approx(12_800 * 24_000 / 44_100, abs=25)
    assert leaked < 0.002


def test_what_goes_wrong_is_said(page: "Page", server: tuple[str, subprocess.Popen[str]]):
    url, process = server
    alert, start = page.get_by_role("alert"), page.get_by_role("button", name="Start")
    for name, words in (("NotAllowedError", "was not allowed"), ("NotFoundError", "No microphone was found")):
        page.evaluate(
            "name => navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', name) }",
            name,
        )
        start.click()
        sync_api.expect(alert).to_contain_text(words)
    page.reload()
    socket = url.replace("http", "ws") + "v1/realtime"
    with connect(socket), connect(socket):
        start.click()
        sync_api.expect(alert).to_contain_text("No place is free on the server. Trying again in")
    wait_for(page, "ready")
    assert alert.inner_text() == ""
    process.kill()
    sync_api.expect(alert).to_contain_text("can't be reached. Trying again in")
    page.get_by_role("button", name="End").click()
    assert page.get_by_role("button", name="Start").is_visible()
    told = page.evaluate("""async () => {
        const { ofClose } = await import("/static/failures.js");
        return (await ofClose({ reason: "session_expired", wasOpen: true }, document.baseURI, "")).text;
    }""")
    assert "longest time" in told
