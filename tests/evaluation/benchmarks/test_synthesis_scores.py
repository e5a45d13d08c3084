"""A list that was read aloud: both truths, coverage, likeness, quality, and the ceiling of the codec."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from deeptalk.decoding import LoadedModel
from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.generation import Ask, generate
from deeptalk.evaluation.benchmarks.normalizers import normalizer
from deeptalk.evaluation.benchmarks.recode import Recoder
from deeptalk.evaluation.benchmarks.speech_lists import SayItem, read_say_list
from deeptalk.evaluation.benchmarks.spoken_answers import SpokenLine
from deeptalk.evaluation.benchmarks.synthesis import (
    coverage,
    mean_of,
    qualities,
    similarities,
    speech_errors,
)
from deeptalk.evaluation.benchmarks.voice_scorers import dnsmos, wavlm

WORDS = normalizer("seedtts-en")
ITEMS = [
    SayItem(id="a", text="one two"),
    SayItem(id="b", text="three"),
    SayItem(id="c", text="four five six"),
]


def tone(path: Path, pitch: float, seconds: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * 16_000)) / 16_000)
    soundfile.write(path, wave, 16_000)
    return path


def line(text: str | None, transcript: str | None) -> SpokenLine:
    return SpokenLine(text=text, transcript=transcript, seconds=1.0)


def test_against_the_list_against_itself_and_the_text_alone() -> None:
    lines = {"a": line("one to", "one to"), "b": line("three", None), "c": line(None, "four")}
    found = speech_errors(ITEMS, lines, WORDS)
    means = {name: report.mean_score() for name, report in found.items()}
    assert means["target"].value == pytest.approx(100 * (1 / 2 + 1 + 2 / 3) / 3)
    assert found["target"].missing == ("b",)
    assert means["self"].value == pytest.approx(100 * (0 + 1) / 2)  # what was not heard is all wrong
    assert means["text"].value == pytest.approx(100 * (1 / 2 + 0) / 2)
    assert {name: score.total for name, score in means.items()} == {"target": 3, "self": 2, "text": 2}
    assert [*speech_errors(ITEMS, {"a": line(None, "one two")}, WORDS)] == ["target"]
    with pytest.raises(DataError, match="nobody has listened"):
        speech_errors(ITEMS, {"a": line("x", None)}, WORDS)
    with pytest.raises(DataError, match="'z' is not in the list"):
        speech_errors(ITEMS, {"z": line("x", "x")}, WORDS)


def test_coverage_likeness_and_quality_count_what_is_missing(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 300)
    tone(tmp_path / "b.wav", 500)
    (tmp_path / "c.wav").write_text("no sound")
    covered = coverage(ITEMS, tmp_path)
    assert (covered.count, covered.total) == (2, 3)
    prompts = [
        SayItem(id=i.id, text=i.text, prompt_audio=tone(tmp_path / "p" / f"{i.id}.wav", 300)) for i in ITEMS
    ]

    def embed(sound: torch.Tensor) -> torch.Tensor:
        pitch = 16_000 * int(torch.fft.rfft(sound).abs().argmax()) / len(sound)
        return torch.tensor([1.0, 0.0]) if pitch < 400 else torch.tensor([0.0, 2.0])

    assert similarities(prompts, tmp_path, embed) == [1.0, 0.0, None]
    with pytest.raises(DataError, match="no prompt recordings"):
        similarities(ITEMS, tmp_path, embed)
    found = qualities(ITEMS, tmp_path, lambda sound: {"peak": float(sound.abs().max())})
    assert found == {"peak": [pytest.approx(0.3, abs=0.01), pytest.approx(0.3, abs=0.01), None]}
    score = mean_of("x", [1.0, 0.0, None], unit="cosine", missing=0.0)
    assert score is not None
    assert (score.value, score.count, score.total) == (pytest.approx(1 / 3), 2, 3)
    kept = mean_of("x", [1.0, 0.0, None], unit="s")
    assert kept is not None
    assert (kept.value, kept.count, kept.total) == (0.5, 2, 3)
    assert mean_of("x", [None], unit="s") is None


def test_recordings_through_the_codec_are_the_ceiling(loaded: LoadedModel, tmp_path: Path) -> None:
    tone(tmp_path / "n.wav", 300)
    rate, good = loaded.codec.sample_rate, Ask(id="a", audio=tmp_path / "n.wav", text="one two")
    asks = [good, Ask(id="b", audio=tmp_path / "none.wav", text="three")]
    plain = generate(asks, Recoder(sample_rate=rate), tmp_path / "plain", settings={"codec": None})
    again = generate(
        asks, Recoder(sample_rate=rate, codec=loaded.codec), tmp_path / "codec", settings={"codec": "c"}
    )
    assert plain is not None
    assert again is not None
    for found in (plain, again):
        assert [one.text for one in found] == ["one two", None]
        assert found[1].reason == "none.wav: there is no such file."
        assert found[0].seconds == pytest.approx(0.5, abs=0.01)
    sounds = [soundfile.read(tmp_path / name / "audio" / "a.wav")[0] for name in ("plain", "codec")]
    assert len(sounds[0]) == len(sounds[1])
    assert np.abs(sounds[0] - sounds[1]).max() > 1e-3
    codes = loaded.codec.encode(torch.from_numpy(sounds[0]).float()[None])
    assert np.abs(loaded.codec.decode(codes)[0][: len(sounds[1])].numpy() - sounds[1]).max() < 1e-2


def test_scorers_that_are_absent_or_broken_are_named(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="no speaker model"):
        wavlm(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="can't be opened"):
        wavlm(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "speechmos", None)
    with pytest.raises(ConfigError, match=r"deeptalk\[quality\]"):
        dnsmos()


def test_a_speaker_model_of_the_library_tells_voices(tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    config = WavLMConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(8, 8),
        tdnn_kernel=(3, 1),
        tdnn_dilation=(1, 1),
        xvector_output_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        WavLMForXVector(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    embed, told = wavlm(tmp_path)
    item = SayItem(id="a", text="x", prompt_audio=tone(tmp_path / "p.wav", 300))
    tone(tmp_path / "a.wav", 300)
    assert similarities([item], tmp_path, embed) == [pytest.approx(1.0)]
    assert told.startswith("wavlm ")


@pytest.mark.filterwarnings("ignore")  # librosa's own
def test_dnsmos_hears_noise(tmp_path: Path) -> None:
    pytest.importorskip("speechmos.dnsmos", reason="DNSMOS needs speechmos (deeptalk[quality])")
    measure, told = dnsmos()
    rng = np.random.default_rng(0)
    found = measure(torch.from_numpy(0.3 * rng.standard_normal(32_000)).float())
    assert set(found) == {"dnsmos/signal", "dnsmos/background", "dnsmos/overall"}
    assert all(0.5 < value < 2.5 for value in found.values())
    assert told.startswith("speechmos ")


def test_a_list_with_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "meta.lst").write_bytes(b"a|one two\r\nb|three\r\n")
    assert [item.text for item in read_say_list(tmp_path / "meta.lst")] == ["one two", "three"]
