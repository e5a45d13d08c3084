"""A random model of every part in a folder, answers of a few frames, and recordings good and bad."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from deeptalk.codec import SineCodec, save_codec
from deeptalk.decoding import DecodingOptions, Limits, Sampling
from deeptalk.model import DeepTalk, DeepTalkConfig, save


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    vocab = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.save(str(folder / "made.json"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DeepTalk(DeepTalkConfig.tiny())
    save(model, folder / "tiny", tokenizer_path=folder / "made.json", provenance={"recipe": "none"})
    save_codec(SineCodec(), folder / "tiny" / "codec")
    return folder / "tiny"


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(**given: Sampling) -> DecodingOptions:
        return DecodingOptions(limits=Limits(max_frames=3, max_text_tokens=4), **given)

    for room in ("decoding.conversation", "cli.opening"):
        monkeypatch.setattr(f"deeptalk.{room}.DecodingOptions", short)


@pytest.fixture
def tone(tmp_path: Path):
    """Writes a tone of a name, length, rate and number of channels, and gives its path."""

    def write(name: str = "tone.wav", *, seconds: float = 0.6, rate: int = 16_000, channels: int = 1) -> Path:
        wave = 0.3 * np.sin(2 * np.pi * 300 * np.arange(int(seconds * rate)) / rate)
        soundfile.write(tmp_path / name, np.repeat(wave[:, None], channels, axis=1), rate)
        return tmp_path / name

    return write


@pytest.fixture
def bad_recordings(tmp_path: Path, tone) -> dict[Path, str]:
    """Every kind of recording that can't be answered, with words of the reason."""
    not_a_number = np.zeros(16_000, dtype=np.float32)
    not_a_number[7] = np.nan
    soundfile.write(tmp_path / "nan.wav", not_a_number, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    (tmp_path / "text.wav").write_text("not a recording")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    return {
        tmp_path / "text.wav": "not audio",
        tmp_path / "empty.wav": "empty",
        tmp_path / "silence.wav": "silent",
        tmp_path / "nan.wav": "NaN",
        tone("seven.wav", channels=7): "7 channels",
        tone("short.wav", seconds=0.05): "too short",
        tone("long.wav", seconds=600, rate=8_000): "too long",
        tmp_path / "missing.wav": "no such file",
        tmp_path / "folder": "folder",
    }
