"""The built wheel holds all it needs: unpacked anywhere it answers a question with the shipped weights."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUESTION = ROOT / "examples" / "questions" / "2-hey-whats-five-plus-thirty-four.wav"

pytestmark = [pytest.mark.slow, pytest.mark.weights]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as an installation would unpack it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    link_package(source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder / "site")
    return folder / "site"


def link_package(source: Path) -> None:
    """Link the package's files one by one: setuptools leaves notes beside them, not in the checkout."""
    for path in (ROOT / "src" / "deeptalk").rglob("*"):
        target = source / "src" / path.relative_to(ROOT / "src")
        if path.is_file() and "__pycache__" not in path.parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)


def test_the_wheel_has_the_whole_talk_page(site: Path):
    here, there = (root / "deeptalk" / "serving" / "page" for root in (ROOT / "src", site))
    names = {path.name for path in here.iterdir()}
    assert {"index.html", "style.css", "main.js", "capture-worklet.js"} <= names
    assert {path.name for path in there.iterdir()} == names
    assert all((there / name).read_bytes() == (here / name).read_bytes() for name in names)


def test_the_wheel_answers_outside_the_checkout(site: Path, tmp_path: Path):
    code = "import deeptalk; print(deeptalk.__file__); from deeptalk.cli import main; main()"
    typed = ("--text", "what's five plus thirty four")
    done = subprocess.run(
        [sys.executable, "-c", code, "talk", str(QUESTION), *typed, "--out", str(tmp_path), "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    )
    where, *lines = done.stdout.splitlines()
    assert Path(where).is_relative_to(site)
    answers = [json.loads(line) for line in lines]
    assert len(answers) == 2
    for answer in answers:
        assert "thirty nine" in answer["text"], answer
        assert Path(answer["audio"]).stat().st_size > 1_000
