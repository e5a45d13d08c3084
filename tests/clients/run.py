"""Stock voice clients talk to ``deeptalk serve``, each in an environment of its own: ``make test-clients``.

Every client asks spoken questions of the evaluation set in one conversation with the built-in model. An
answer counts as completed when the server says so and at least 0.2 s of its sound is voice; it is right when
its words are those of the reference. The exit status is 0 when every answer of every client was completed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
import wave
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from spoken import RATE

from deeptalk.cli.served import served
from deeptalk.evaluation.normalize import plain
from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalItem, EvalSet
from deeptalk.serving.audio_formats import encode_pcm

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "clients"
LEAST_SECONDS = 0.2

CLIENTS: Mapping[str, tuple[str, ...]] = {
    "openai-python": ("manual", "server_vad"),
    "openai-agents": ("semantic_vad",),
    "pipecat": ("server_vad",),
    "livekit-agents": ("semantic_vad",),
    "openai-agents-js": ("semantic_vad",),
}
"""The clients, and how the turns of their conversations end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one conversation gave; ``trouble`` is the last line of a client that failed."""

    client: str
    version: str
    turns: str
    asked: int
    completed: int
    right: int
    trouble: str
    records: Sequence[Mapping[str, Any]]


def main() -> int:
    """Run the clients that were named, by default all; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "clients", nargs="*", metavar="CLIENT", help=f"of {', '.join(CLIENTS)}; by default all"
    )
    parser.add_argument("--count", type=int, default=20, metavar="N", help="questions of a conversation")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    if given.count < 1:
        parser.error("--count must be 1 or more")
    if unknown := set(given.clients) - set(CLIENTS):
        parser.error(f"no client {', '.join(sorted(unknown))}; there are {', '.join(CLIENTS)}")
    questions = write_questions(BUILD / "questions", count=given.count)
    outcomes = []
    for client in given.clients or CLIENTS:
        script = environment(client)
        for turns in CLIENTS[client]:
            with served(log=BUILD / "serve.log") as url:
                base = url.replace("ws", "http", 1).removesuffix("/realtime")
                outcomes.append(converse(script, client, turns, url=base, questions=questions))
            if not given.json:
                print(row_of(outcomes[-1]), flush=True)
    if given.json:
        print(json.dumps({"clients": [asdict(outcome) for outcome in outcomes]}, indent=2))
    return int(any(outcome.trouble or outcome.completed < outcome.asked for outcome in outcomes))


def write_questions(folder: Path, *, count: int) -> list[EvalItem]:
    """Write questions as WAV files, of each category in turn; what they are."""
    spoken = EvalSet(Path(str(files("deeptalk"))) / "assets" / "evaluation")
    kinds = [[item for item in spoken.of(kind) if not item.text_only] for kind in FIVE_CATEGORIES]
    items = [item for mixed in zip(*kinds, strict=False) for item in mixed][:count]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.wav"):
        old.unlink()
    for number, item in enumerate(items):
        with wave.open(str(folder / f"{number:02d}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(encode_pcm(spoken.speech(item.turns[0], sample_rate=RATE)))
    return items


def environment(client: str) -> list[str | Path]:
    """How a client's script is started, in its own environment: made where its requirements have changed."""
    source, folder = HERE / client, BUILD / client
    is_python = (source / "requirements.txt").exists()
    wanted = (source / ("requirements.txt" if is_python else "package-lock.json")).read_text(encoding="utf-8")
    ready = folder / "ready"
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        if is_python:
            venv.create(folder, with_pip=True)
            command = [folder / "bin" / "pip", "install", "-q", "-r", source / "requirements.txt"]
        else:
            shutil.copytree(source, folder)
            command = ["npm", "ci", "--silent", "--prefix", folder]
        try:
            subprocess.run(command, check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{client} can't be installed ({error}): it needs PyPI, or npm and its registry.")
        ready.write_text(wanted, encoding="utf-8")
    if is_python:
        return [folder / "bin" / "python", source / "client.py"]
    shutil.copy(source / "client.js", folder)  # it finds its packages beside itself
    return ["node", folder / "client.js"]


def converse(
    script: Sequence[str | Path], client: str, turns: str, *, url: str, questions: Sequence[EvalItem]
) -> Outcome:
    """One conversation of a client, to its end."""
    command = [*script, url, turns, BUILD / "questions"]
    surroundings = os.environ | {"PYTHONPATH": str(HERE), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    (BUILD / f"{client}-{turns}.log").write_text(done.stderr, encoding="utf-8")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    for record, item in zip(records, questions, strict=False):
        record["right"] = plain(record["text"]) == plain(item.answers[0])
    return Outcome(
        client=client,
        version=version_of(client),
        turns=turns,
        asked=len(questions),
        completed=sum(one["completed"] and one["seconds_of_audio"] >= LEAST_SECONDS for one in records),
        right=sum(one["right"] for one in records),
        trouble=(done.stderr.strip().splitlines() or ["no words"])[-1] if done.returncode else "",
        records=records,
    )


def version_of(client: str) -> str:
    """The client's package with its version: the first requirement, or the only one of npm."""
    source = HERE / client
    if (source / "requirements.txt").exists():
        return (source / "requirements.txt").read_text(encoding="utf-8").partition("\n")[0]
    packages = json.loads((source / "package.json").read_text(encoding="utf-8"))["dependencies"]
    return " ".join(f"{name}@{version}" for name, version in packages.items())


def row_of(outcome: Outcome) -> str:
    """One line of the table."""
    counts = (
        f"completed {outcome.completed:2d} of {outcome.asked}  right {outcome.right:2d} of {outcome.asked}"
    )
    return f"{outcome.version:31s} {outcome.turns:12s} {counts}  {outcome.trouble}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
