"""Examples side by side: the one shape in which data meets the model."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from deeptalk.errors import DataError
from deeptalk.shapes import Bool, Float, Int, Tensor
from deeptalk.streams.layout import IGNORE, StreamLayout, num_encoder_frames, num_speech_frames
from deeptalk.streams.modality import PAD_KIND
from deeptalk.streams.prompt import NO_SPEECH, Example


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Dialogues padded on the right, and the speech of their users.

    ``speech_at`` is n·U + u for frame u of clip n, U being the adapter frames of the longest clip, and -1
    where no speech stands. Speech comes as log-mel or as cached encoder output, its length in frames of
    what is given; both are None in a batch without speech. ``said`` is what sounds in the frame whose first
    code a position predicts (see `Example`), and ``heard`` the text ids of each clip, padded with
    ``IGNORE``; both are None where no example knows. ``backbone_says`` are log-probabilities of a text
    backbone at the text labels, row by row, where text is held against it.
    """

    grid: Int[Tensor, "B K T"]
    labels: Int[Tensor, "B K T"]
    kind: Int[Tensor, "B T"]
    row: Int[Tensor, "B"]
    mask: Bool[Tensor, "B T"]
    speech_at: Int[Tensor, "B T"]
    mel: Float[Tensor, "N M F"] | None
    encoded: Float[Tensor, "N U2 D2"] | None
    speech_lengths: Int[Tensor, "N"]
    said: Int[Tensor, "B T S"] | None = None
    heard: Int[Tensor, "N W"] | None = None
    backbone_says: Float[Tensor, "P V"] | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        moved = {}
        for item in fields(self):
            value = getattr(self, item.name)
            moved[item.name] = None if value is None else value.to(device, non_blocking=non_blocking)
        return Batch(**moved)


def collate(
    examples: Sequence[Example],
    speech: Sequence[Sequence[Tensor]],
    *,
    layout: StreamLayout,
    is_encoded: bool,
    stride: int,
) -> Batch:
    """Examples and their clips as one batch, padded on the right.

    ``speech[b]`` are the clips of example b in order: log-mel ``[M, F]``, or with ``is_encoded`` encoder
    output ``[U2, D2]``; ``stride`` is the adapter's.
    """
    if not examples or len(examples) != len(speech):
        raise DataError(f"A batch needs clips for each example, got {len(examples)} and {len(speech)}.")
    clips = [clip for own in speech for clip in own]
    lengths = [clip.shape[0 if is_encoded else 1] for clip in clips]
    frames = [
        num_speech_frames(length if is_encoded else num_encoder_frames(length), stride=stride)
        for length in lengths
    ]
    counts, longest = len(examples), max(example.grid.shape[1] for example in examples)
    grid = torch.tensor(layout.pad_ids).repeat(counts, 1)[:, :, None].repeat(1, 1, longest)
    labels = torch.full_like(grid, IGNORE)
    kind = torch.full((counts, longest), PAD_KIND)
    speech_at = torch.full((counts, longest), NO_SPEECH)
    num_clips, widest = 0, max(frames, default=0)
    for b, (example, own) in enumerate(zip(examples, speech, strict=True)):
        size = example.grid.shape[1]
        grid[b, :, :size] = example.grid
        labels[b, :, :size] = example.labels
        kind[b, :size] = example.kind
        speech_at[b, :size] = _placed(
            example.speech_at, frames[num_clips : num_clips + len(own)], num_clips, widest
        )
        num_clips += len(own)
    padded = _padded(clips, is_encoded=is_encoded) if clips else None
    return Batch(
        grid=grid,
        labels=labels,
        kind=kind,
        row=torch.tensor([int(example.row) for example in examples]),
        mask=kind != PAD_KIND,
        speech_at=speech_at,
        mel=None if is_encoded else padded,
        encoded=padded if is_encoded else None,
        speech_lengths=torch.tensor(lengths, dtype=torch.long),
        said=_beside([example.said for example in examples], longest),
        heard=_heard(examples, num_clips=len(clips)),
    )


def _heard(examples: Sequence[Example], *, num_clips: int) -> Tensor | None:
    """What is heard in each clip of a batch, padded to the longest text."""
    heard = [ids for example in examples for ids in example.heard]
    if len(heard) != num_clips or not any(len(ids) for ids in heard):
        return None
    return torch.nn.utils.rnn.pad_sequence(heard, batch_first=True, padding_value=IGNORE)


def _beside(said: Sequence[Tensor | None], longest: int) -> Tensor | None:
    """What several examples say, padded to the longest; ``IGNORE`` where an example doesn't know."""
    known = next((own for own in said if own is not None), None)
    if known is None:
        return None
    padded = known.new_full((len(said), longest, known.shape[1]), IGNORE)
    for b, own in enumerate(said):
        if own is not None:
            padded[b, : len(own)] = own
    return padded


def _placed(speech_at: Int[Tensor, "T"], frames: list[int], first: int, widest: int) -> Int[Tensor, "T"]:
    """Running frame numbers of an example as places in the batch's speech, whose first clip is ``first``."""
    expected = int(speech_at.max()) + 1
    if sum(frames) != expected:
        raise DataError(f"An example has room for {expected} speech frames, its clips have {sum(frames)}.")
    if not frames:
        return speech_at
    places = torch.cat([(first + n) * widest + torch.arange(count) for n, count in enumerate(frames)])
    return torch.where(speech_at >= 0, places[speech_at.clamp(min=0)], NO_SPEECH)


def _padded(clips: list[Tensor], *, is_encoded: bool) -> Tensor:
    """Clips side by side, padded at the end of time with zeros."""
    if is_encoded:
        return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    padded = clips[0].new_zeros(len(clips), clips[0].shape[0], max(clip.shape[1] for clip in clips))
    for n, clip in enumerate(clips):
        padded[n, :, : clip.shape[1]] = clip
    return padded
