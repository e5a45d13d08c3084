"""Encoder and codec as graphs that run without DeepTalk: by ``torch.export``, or as ONNX.

Of each graph one clip comes in and one goes out; how long it is stays open, in whole encoder frames or whole
codec frames.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from deeptalk.codec import Codec, SineCodec, load_codec
from deeptalk.codec.pocket import PocketCodec
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.model.encoder import MEL_FRAMES_PER_FRAME, SpeechEncoder, block_mask, pad_like_silence
from deeptalk.model.fresh import check_free, fresh_folder
from deeptalk.model.weights import load, model_folder
from deeptalk.shapes import Float, Int, Tensor

GraphForm = Literal["torch", "onnx"]
ENDS: dict[GraphForm, str] = {"torch": ".pt2", "onnx": ".onnx"}
NOTE = "graphs.json"
TOLERANCE = 1e-4
"""How far a number of a graph may be from the model's in ONNX; of ``torch.export`` they are the same."""

_MOST_FRAMES = 1_500
_TRIED_FRAMES = (2, 5, 12)


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """What was written: ``difference`` is the largest one from the model on clips that were tried."""

    name: str
    file: str
    input: tuple[str | int, ...]
    output: tuple[str | int, ...]
    difference: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A module with one input, whose axis ``axis`` has ``step`` times as many entries as there are frames."""

    name: str
    module: nn.Module
    axis: int
    step: int
    draw: Callable[[int], Tensor]
    input: tuple[str | int, ...]
    output: tuple[str | int, ...]


class _ClipEncoder(nn.Module):
    """The encoder for one clip of an even number of mel frames, without a check that looks at numbers."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, mel: Float[Tensor, "1 M F"]) -> Float[Tensor, "1 U2 D2"]:
        """Encoder frames of all mel frames."""
        encoder, settings = self.encoder, self.encoder.settings
        lengths = torch.full((1,), mel.shape[-1], dtype=torch.long)
        num_frames = mel.shape[-1] // MEL_FRAMES_PER_FRAME
        if settings.mode == "pad30":
            mel = pad_like_silence(mel, lengths, to=MEL_FRAMES_PER_FRAME * settings.max_positions)
            lengths = torch.full_like(lengths, mel.shape[-1])
        hidden, mask = encoder.front(mel, lengths), None
        if settings.mode == "chunked":
            at = torch.arange(hidden.shape[1])
            mask = block_mask(at, at, chunk_frames=settings.chunk_frames, left_chunks=settings.left_chunks)
            mask = mask[None, None]
        hidden, _ = encoder.attend(hidden, mask=mask)
        return encoder.layer_norm(hidden)[:, :num_frames]


class _CodecEncoder(nn.Module):
    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, samples: Float[Tensor, "1 S"]) -> Int[Tensor, "1 Q T"]:
        """Codes of whole frames."""
        return self.codec.encode(samples)


class _CodecDecoder(nn.Module):
    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, codes: Int[Tensor, "1 Q T"]) -> Float[Tensor, "1 S"]:
        """Samples of whole frames."""
        return self.codec.decode(codes)


def export_graphs(name_or_path: str | Path, target: str | Path, *, form: GraphForm) -> tuple[Graph, ...]:
    """Write encoder and codec of a model as graphs into a new folder, in float32.

    Every graph is run on clips of several lengths and compared with the model: equal by ``torch.export``,
    to `TOLERANCE` in ONNX where onnxruntime is installed. ONNX lacks operators that the pocket codec's
    encoder needs: there its decoder alone is written.

    Raises:
        CheckpointError: the model can't be opened, ``target`` is taken, or a graph doesn't say the same.
        ConfigError: ONNX's libraries aren't installed, or the codec has no graph.
    """
    source, target = model_folder(name_or_path), Path(target)
    check_free(target)
    if form == "onnx":
        _need_onnx()
    model, codec = load(source), load_codec(source / "codec")
    parts = [*_encoder_parts(model.encoder), *_codec_parts(codec)]
    if form == "onnx" and isinstance(codec, PocketCodec):  # its pitch tracker needs cummax and nanmedian
        parts = [part for part in parts if part.name != "codec_encoder"]
    with fresh_folder(target) as folder, torch.no_grad(), _calm():
        graphs = tuple(_write(part, folder, form) for part in parts)
        note = {"form": form, "graphs": [asdict(graph) for graph in graphs], "mel": asdict(model.mel)}
        note |= {"sample_rate": codec.sample_rate, "samples_per_frame": codec.samples_per_frame}
        (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    return graphs


def _encoder_parts(encoder: SpeechEncoder) -> Iterator[_Part]:
    settings = encoder.settings
    yield _Part(
        name="encoder",
        module=_ClipEncoder(encoder).eval(),
        axis=2,
        step=MEL_FRAMES_PER_FRAME,
        draw=lambda frames: torch.randn(1, settings.num_mels, MEL_FRAMES_PER_FRAME * frames),
        input=(1, settings.num_mels, f"{MEL_FRAMES_PER_FRAME} * frames"),
        output=(1, "frames", settings.d_model),
    )


def _codec_parts(codec: Codec) -> Iterator[_Part]:
    if isinstance(codec, SineCodec):
        raise ConfigError(
            "a codec of sines is for tests and has no weights; there is nothing to write of it."
        )
    samples, books, size = codec.samples_per_frame, codec.num_codebooks, codec.codebook_size
    yield _Part(
        name="codec_encoder",
        module=_CodecEncoder(codec).eval(),
        axis=1,
        step=samples,
        draw=lambda frames: 0.1 * torch.randn(1, samples * frames),
        input=(1, f"{samples} * frames"),
        output=(1, books, "frames"),
    )
    yield _Part(
        name="codec_decoder",
        module=_CodecDecoder(codec).eval(),
        axis=2,
        step=1,
        draw=lambda frames: torch.randint(0, size, (1, books, frames)),
        input=(1, books, "frames"),
        output=(1, f"{samples} * frames"),
    )


def _write(part: _Part, folder: Path, form: GraphForm) -> Graph:
    """One graph, compared with its module on clips of several lengths."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tried = [part.draw(frames) for frames in _TRIED_FRAMES]
    expected = [part.module(given) for given in tried]  # and tables that are kept are made of real numbers
    frames = Dim("frames", min=2, max=_MOST_FRAMES)
    shapes = ({part.axis: part.step * frames if part.step > 1 else frames},)
    program = torch.export.export(part.module, (tried[1],), dynamic_shapes=shapes)
    path = folder / f"{part.name}{ENDS[form]}"
    run = _save_torch(program, path) if form == "torch" else _save_onnx(program, path, tried[1], shapes)
    difference = None if run is None else max(map(_difference, expected, map(run, tried)))
    if difference is not None and difference > (0.0 if form == "torch" else TOLERANCE):
        raise CheckpointError(f"{path.name} differs from the model by {difference:.2g}; it is not written.")
    return Graph(name=part.name, file=path.name, input=part.input, output=part.output, difference=difference)


def _difference(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        return float("inf")
    return (expected.double() - found.double()).abs().max().item()


_Run = Callable[[Tensor], Tensor]


def _save_torch(program: ExportedProgram, path: Path) -> _Run:
    torch.export.save(program, path)
    return torch.export.load(path).module()


def _save_onnx(program: ExportedProgram, path: Path, given: Tensor, shapes: Any) -> _Run | None:
    written = torch.onnx.export(program, (given,), dynamic_shapes=shapes, dynamo=True, verbose=False)
    assert written is not None
    written.save(path)
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: torch.from_numpy(session.run(None, {name: tensor.numpy()})[0])


@contextmanager
def _calm() -> Iterator[None]:
    """Without what the exporter says about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("--to onnx needs its libraries: pip install 'deeptalk[onnx]'.") from error
