"""Encoder and codec as graphs: they say what the model says, without it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch

from deeptalk.codec import SineCodec, SnacCodec, SnacConfig, save_codec
from deeptalk.codec.pocket import PocketCodec, PocketCodecConfig
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model import graphs
from deeptalk.model.encoder import EncoderConfig, SpeechEncoder
from deeptalk.model.graphs import export_graphs
from deeptalk.model.weights import save


@pytest.fixture
def folder(tmp_path: Path, build: Callable, tokenizer_path: Path) -> Path:
    save(build(), tmp_path / "model", tokenizer_path=tokenizer_path, provenance={})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_codec(PocketCodec(PocketCodecConfig.tiny()).eval(), tmp_path / "model" / "codec")
    return tmp_path / "model"


@pytest.mark.slow
def test_graphs_equal_the_model_and_say_what_they_take(folder: Path, tmp_path: Path) -> None:
    written = export_graphs(folder, tmp_path / "out", form="torch")
    assert [graph.difference for graph in written] == [0.0, 0.0, 0.0]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("encoder.pt2", "codec_encoder.pt2", "codec_decoder.pt2", "graphs.json")
    }
    note = json.loads((tmp_path / "out" / "graphs.json").read_text())
    encoder, coder, decoder = note["graphs"]
    assert (encoder["input"], encoder["output"]) == ([1, 8, "2 * frames"], [1, "frames", 16])
    assert (coder["input"], coder["output"]) == ([1, "2048 * frames"], [1, 7, "frames"])
    assert (decoder["file"], note["sample_rate"], note["mel"]["num_mels"]) == ("codec_decoder.pt2", 24_000, 8)
    with pytest.raises(CheckpointError, match="exists already"):
        export_graphs(folder, tmp_path / "out", form="torch")


@pytest.mark.parametrize("mode", ["pad30", "native", "chunked"])
def test_one_clip_is_encoded_as_in_the_model(mode: Literal["pad30", "native", "chunked"]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = SpeechEncoder(EncoderConfig.tiny(mode=mode)).eval()
        (part,) = graphs._encoder_parts(encoder)
        given = part.draw(7)
    with torch.no_grad():
        expected = encoder(given, torch.tensor([given.shape[-1]])).frames
        assert torch.equal(part.module(given), expected)


@pytest.mark.slow
def test_snac_and_a_stock_whisper_encoder_have_graphs(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = SpeechEncoder(EncoderConfig.tiny(mode="pad30")).eval()
        parts = [*graphs._encoder_parts(encoder), *graphs._codec_parts(SnacCodec(SnacConfig.tiny()))]
    with torch.no_grad():
        assert [graphs._write(part, tmp_path, "torch").difference for part in parts] == [0.0, 0.0, 0.0]


@pytest.mark.slow
def test_onnxruntime_says_the_same(folder: Path, tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="deeptalk[onnx] is not installed")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_codec(SnacCodec(SnacConfig.tiny()), folder / "codec")
    written = export_graphs(folder, tmp_path / "out", form="onnx")
    assert [graph.file for graph in written] == ["encoder.onnx", "codec_encoder.onnx", "codec_decoder.onnx"]
    assert all(graph.difference is not None and graph.difference <= graphs.TOLERANCE for graph in written)


class Counting(torch.nn.Module):
    """Says something else each time."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.times += 1
        return x + self.times


def test_a_graph_that_says_something_else_is_not_written(tmp_path: Path) -> None:
    part = graphs._Part(
        name="odd", module=Counting(), axis=0, step=1, draw=torch.zeros, input=("frames",), output=("frames",)
    )
    with pytest.raises(CheckpointError, match=r"odd\.pt2 differs from the model by"):
        graphs._write(part, tmp_path, "torch")


def test_what_has_no_graph_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"pip install 'deeptalk\[onnx\]'"):
        export_graphs(folder, tmp_path / "out", form="onnx")
    save_codec(SineCodec(), folder / "codec")
    with pytest.raises(ConfigError, match="nothing to write"):
        export_graphs(folder, tmp_path / "out", form="torch")
