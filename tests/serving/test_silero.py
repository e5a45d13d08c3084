"""Turns found by silero-vad, where it is installed; real speech, for it takes no tone for a voice."""

import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest
import torch

from deeptalk.errors import ConfigError
from deeptalk.evaluation.questions import EvalSet
from deeptalk.serving.detector import FRAME, Heard, LoudVoice, TurnDetector
from deeptalk.serving.settings import TurnDetection
from deeptalk.serving.silero import SileroVoice, detector_of


@pytest.fixture(scope="module")
def question() -> torch.Tensor:
    """About a second and a half of speech at 16 kHz."""
    spoken = EvalSet(Path(str(files("deeptalk"))) / "assets" / "evaluation")
    return spoken.speech(next(item.turns[0] for item in spoken.items if 1 < item.turns[0].duration < 2))


def detect(sound: torch.Tensor, *, name: str, audible: bool = False) -> list[Heard]:
    detector = TurnDetector(TurnDetection(), longest_seconds=30.0, new_voice=detector_of(name))  # pyright: ignore[reportArgumentType]
    return [heard for chunk in sound.split(777) for heard in detector.push(chunk, is_audible=audible)]


def marks(found: list[Heard]) -> list[tuple[str, int]]:
    return [(heard.kind, heard.at_ms) for heard in found if heard.kind != "sound"]


def hush(seconds: float, *, loud: float) -> torch.Tensor:
    return loud * torch.randn(int(seconds * 16_000), generator=torch.Generator().manual_seed(0))


def test_speech_is_a_turn_and_a_whistle_is_none(question: torch.Tensor):
    pytest.importorskip("silero_vad")
    num_threads = torch.get_num_threads()
    sound = torch.cat([hush(1.0, loud=0.001), question, hush(1.0, loud=0.001)])
    found, other = (marks(detect(sound, name=name)) for name in ("silero", "energy"))
    assert [kind for kind, _ in found] == ["started", "stopped"]
    assert 500 <= found[0][1] <= 1000  # all of the speech, which begins after a second
    assert abs(found[1][1] - other[1][1]) <= 300
    time = torch.arange(16_000) / 16_000
    sound = torch.cat([hush(1.0, loud=0.001), 0.1 * torch.sin(6300 * time), hush(1.0, loud=0.001)])
    assert marks(detect(sound, name="silero")) == []
    assert [kind for kind, _ in marks(detect(sound, name="energy"))] == ["started", "stopped"]
    assert torch.get_num_threads() == num_threads


def test_over_an_answer_it_has_to_be_loud_as_well(question: torch.Tensor):
    pytest.importorskip("silero_vad")
    soft = torch.cat([hush(1.0, loud=0.001), question * 0.004 / question.square().mean().sqrt()])
    assert marks(detect(soft, name="silero", audible=False))
    assert not [kind for kind, _ in marks(detect(soft, name="silero", audible=True)) if kind == "started"]


def test_sessions_share_no_state(question: torch.Tensor):
    """What one session hears does not change what another hears."""
    pytest.importorskip("silero_vad")
    new_voice = detector_of("silero")
    alone, busy, other = (new_voice(0.5) for _ in range(3))
    frames = [frame.numpy() for frame in question.split(FRAME) if len(frame) == FRAME]
    expected = [alone.is_voice(frame) for frame in frames]
    got = []
    for frame in frames:
        other.is_voice(hush(0.02, loud=0.1).numpy())
        got.append(busy.is_voice(frame))
    assert got == expected
    assert any(got)


@pytest.mark.parametrize("module", [None, ModuleType("broken")])
def test_without_the_package_energy_finds_turns(monkeypatch: pytest.MonkeyPatch, module: ModuleType | None):
    monkeypatch.setitem(sys.modules, "silero_vad", module)
    assert detector_of("auto") is detector_of("energy") is LoudVoice
    with pytest.raises(ConfigError, match=r"deeptalk\[vad\]"):
        detector_of("silero")


def test_auto_takes_the_package():
    pytest.importorskip("silero_vad")
    assert isinstance(detector_of("auto")(0.5), SileroVoice)
