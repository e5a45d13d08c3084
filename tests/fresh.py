"""From nothing to a conversation: install, talk, train tiny, save, load, serve, ask. ``make fresh``.

The package is built and installed into an environment of its own, below a temporary folder. From there on
nothing but this machine is reached: the rest runs without a network, where the system can take it away
(``unshare``), and with the switches of the hub's library set to offline.
"""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
QUESTION = ROOT / "examples" / "questions" / "2-hey-whats-five-plus-thirty-four.wav"
RECIPES = ROOT / "tests" / "training" / "own_recipes.py"
STAGES = ("tiny-align", "tiny-audio-experts", "tiny-text-experts", "tiny-joint")
NO_NETWORK = ("unshare", "--user", "--map-root-user", "--net", "--")
OFFLINE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
MOST_SECONDS = 600.0

# what a process knows of a trained model: it is opened, asked, and saved for the next one
SAVE = """
import sys, torch
from pathlib import Path
from deeptalk.cli.conformance import _batch
from deeptalk.model.hub import DeepTalkForConditionalGeneration
opened = DeepTalkForConditionalGeneration.from_pretrained(sys.argv[1])
with torch.no_grad():
    logits = opened(_batch(opened.model.layout, "what")).logits
torch.save([logits.text, logits.codec], sys.argv[3])
if sys.argv[2]:
    opened.save_pretrained(sys.argv[2])
"""


def main() -> int:
    """Both halves; exit status 1 where a step fails or the second half takes too long."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--go-on", type=Path, help="the second half, in a folder that has an environment")
    given = parser.parse_args()
    if given.go_on is not None:
        return go_on(given.go_on)
    with TemporaryDirectory(prefix="deeptalk-fresh-") as scratch:
        room = Path(scratch)
        python = install(room)
        can_unshare = shutil.which(NO_NETWORK[0]) and not subprocess.run([*NO_NETWORK, "true"]).returncode
        if not can_unshare:
            print("the network can't be taken away here: told the libraries to stay offline", flush=True)
        command = [*(NO_NETWORK if can_unshare else ()), python, __file__, "--go-on", room]
        return subprocess.run(list(map(str, command)), cwd=room, env=os.environ | OFFLINE).returncode


def install(room: Path) -> Path:
    """An environment with the package and its extra `serve`; its interpreter."""
    with told("install"):
        source = room / "source"
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, source)
        shutil.copytree(
            ROOT / "src/deeptalk", source / "src/deeptalk", ignore=shutil.ignore_patterns("__pycache__")
        )
        python = room / "env" / "bin" / "python"
        pip = [python, "-m", "pip", "install", "-q"]
        index = os.environ.get("TORCH_INDEX")
        run(sys.executable, "-m", "venv", room / "env")
        run(*pip, *(("--index-url", index) if index else ()), os.environ.get("TORCH", "torch==2.13.0"))
        run(*pip, f"{source}[serve]")
        return python


def go_on(room: Path) -> int:
    """What somebody new does with an installed package, each step as a process of its own."""
    raise_loopback()
    begun = time.monotonic()
    deeptalk = (sys.executable, "-m", "deeptalk")
    with told("talk"):
        answer = told_json(*deeptalk, "talk", QUESTION, "--out", room / "out", "--json")
        check("thirty nine" in answer["text"], answer)
        check(Path(answer["audio"]).stat().st_size > 1_000, answer)
    with told("train tiny"):
        run(sys.executable, ROOT / "tests/training/own_room.py", room)
        for stage in STAGES:
            trained = told_json(*deeptalk, "train", stage, "--recipes", RECIPES, "--root", room, "--json")
            check(trained["step"] == 4, trained)
        result = room / STAGES[-1] / "model"
    with told("save, and load in another process"):
        logits = [room / "first.pt", room / "second.pt"]
        run(sys.executable, "-c", SAVE, result, room / "saved", logits[0])
        run(sys.executable, "-c", SAVE, room / "saved", "", logits[1])
        import torch

        first, second = (torch.load(path) for path in logits)
        check(all(torch.equal(*pair) for pair in zip(first, second, strict=True)), "other logits")
    with told("serve, and ask"):
        from deeptalk.cli.served import served

        with served("--model", str(room / "saved"), log=room / "server.log") as url:
            given = ("client", QUESTION, "--text", "why", "--url", url, "--out", room / "asked", "--json")
            lines = run(*deeptalk, *given).splitlines()
            check(len(lines) == 2, lines)
            check({json.loads(line)["status"] for line in lines} <= {"completed", "incomplete"}, lines)
    seconds = time.monotonic() - begun
    print(f"all after the installation: {seconds:.0f} s", flush=True)
    check(seconds <= MOST_SECONDS, f"more than {MOST_SECONDS:.0f} s")
    return 0


def raise_loopback() -> None:
    """In a network namespace of one's own the loopback is down at first."""
    up = struct.pack("16sH14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            fcntl.ioctl(handle, 0x8914, up)  # SIOCSIFFLAGS
        except PermissionError:
            return  # no namespace: it is up


@contextmanager
def told(step: str) -> Iterator[None]:
    """Print a step with its seconds once it is done."""
    begun = time.monotonic()
    yield
    print(f"{step}: {time.monotonic() - begun:.0f} s", flush=True)


def run(*command: object) -> str:
    """What a command prints; the script ends where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-2_000:], done.stderr[-4_000:], sep="\n", file=sys.stderr)
        raise SystemExit(f"failed: {' '.join(map(str, command))[:200]}")
    return done.stdout


def told_json(*command: object) -> dict[str, Any]:
    """The last line that a command prints, as JSON."""
    return json.loads(run(*command).splitlines()[-1])


def check(holds: bool, what: object) -> None:
    """End the script where something doesn't hold."""
    if not holds:
        raise SystemExit(f"doesn't hold: {what}")


if __name__ == "__main__":
    raise SystemExit(main())
