"""Pictures of a conversation on the talk page: `make screenshots`."""

import sys
import tempfile
from pathlib import Path

from browser import QUESTIONS, find_chromium, launch, served, wait_for, write_microphone
from playwright.sync_api import expect, sync_playwright


def main(folder: Path) -> None:
    """Hold a conversation of two turns; keep how it looks on a desk in light and on a phone in the dark."""
    with tempfile.TemporaryDirectory() as temporary, served() as (url, _), sync_playwright() as playwright:
        program = find_chromium(playwright)
        if program is None:
            sys.exit("A Chromium is needed: apt-get install chromium, or playwright install chromium.")
        microphone = Path(temporary) / "questions.wav"
        write_microphone(microphone, [QUESTIONS[0], QUESTIONS[1]], pause_seconds=25.0)
        browser = launch(playwright, program, microphone)
        page = browser.new_page(viewport={"width": 1100, "height": 844}, color_scheme="light")
        page.goto(url)
        page.get_by_text("Hands-free", exact=True).click()
        page.get_by_role("button", name="Start").click()
        wait_for(page, "ready")
        page.locator('.assistant[aria-busy="false"]').nth(1).wait_for(timeout=240_000)
        expect(page.get_by_role("log")).not_to_contain_text("Spoken", timeout=60_000)
        page.screenshot(path=folder / "talk-page-desktop.png")
        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=folder / "talk-page-phone.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
