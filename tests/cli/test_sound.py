"""Loudspeaker and microphone on a pretended machine, and on one that has neither."""

import builtins
import sys
from types import ModuleType

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from deeptalk.cli import app

pytestmark = pytest.mark.usefixtures("short_answers")


class FakeDevice(ModuleType):
    """As much of ``sounddevice`` as is used: it hears a tone and remembers what it plays."""

    class PortAudioError(Exception):
        pass

    def __init__(self, kinds: tuple[str, ...]) -> None:
        super().__init__("sounddevice")
        self.played: list[tuple[int, int]] = []
        device = self

        class OutputStream:
            def __init__(self, *, samplerate: int, channels: int, dtype: str) -> None:
                self.rate = samplerate

            def write(self, samples: np.ndarray) -> None:
                device.played.append((self.rate, len(samples)))

            def start(self) -> None: ...

            def stop(self) -> None: ...

            def close(self) -> None: ...

        class InputStream:
            def __init__(self, *, samplerate: int, channels: int, dtype: str, callback) -> None:
                wave = 0.3 * np.sin(2 * np.pi * 300 * np.arange(samplerate // 2) / samplerate)
                self.block, self.callback = wave.astype(np.float32)[:, None], callback

            def __enter__(self) -> None:
                self.callback(self.block, len(self.block), None, None)

            def __exit__(self, *error: object) -> None: ...

        def query_devices(*, kind: str) -> dict[str, float]:
            if kind not in kinds:
                raise ValueError(f"No {kind} device matching")
            return {"default_samplerate": 44_100.0}

        self.OutputStream, self.InputStream, self.query_devices = OutputStream, InputStream, query_devices


@pytest.fixture
def talk(model_folder, tmp_path):
    def run(*arguments: object, **kwargs):
        given = ["talk", *arguments, "--model", model_folder, "--out", tmp_path / "out"]
        return CliRunner().invoke(app, [str(argument) for argument in given], **kwargs)

    return run


def test_play_hands_all_samples_over(talk, tone, monkeypatch, tmp_path):
    device = FakeDevice(("output",))
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    assert talk(tone(), "--play").exit_code == 0
    assert {rate for rate, _ in device.played} == {24_000}
    written = soundfile.info(tmp_path / "out" / "tone-answer.wav").frames
    assert sum(samples for _, samples in device.played) == written > 0


def test_microphone_turns_are_one_dialogue(talk, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevice(("input",)))
    answers = iter(["", "", "", ""])

    def enter() -> str:
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", enter)
    result = talk("--mic")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "microphone-answer-2.wav",
        "microphone-answer.wav",
    ]


@pytest.mark.parametrize(("option", "name"), [("--play", "loudspeaker"), ("--mic", "microphone")])
def test_a_machine_without_sound_says_so(talk, tone, monkeypatch, option, name):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevice(()))
    result = talk(tone(), option)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{name}: this machine has none")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = talk(tone(), option)
    assert result.exit_code == 2
    assert "deeptalk[mic]" in result.stderr
