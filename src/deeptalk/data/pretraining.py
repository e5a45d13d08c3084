"""Stretches of recordings: what a codec learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch

from deeptalk.data.alignment import phones_at
from deeptalk.data.library import Clip
from deeptalk.data.manifest import read_manifest
from deeptalk.data.mixture import BatchStream, Draw, MixturePlan
from deeptalk.data.packs import AudioPack
from deeptalk.errors import DataError
from deeptalk.shapes import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WaveformBatch:
    """Stretches of equal length, and the phone of each of its N latent frames, -100 where unknown."""

    waveform: Float[Tensor, "B S"]
    phones: Int[Tensor, "B N"]

    def to(self, device: torch.device | str) -> "WaveformBatch":
        """The same stretches on another device."""
        return WaveformBatch(waveform=self.waveform.to(device), phones=self.phones.to(device))


class WaveformBatches(BatchStream[tuple[Tensor, Tensor], WaveformBatch]):
    """An endless stream of stretches of `num_samples`; `batch_size` counts samples at `sample_rate`.

    A stretch begins somewhere in a clip and is filled up with silence behind the clip's end. The manifest's
    phones are told every `samples_per_phone`.
    """

    def __init__(
        self,
        manifests: Sequence[Path],
        *,
        sample_rate: int,
        num_samples: int,
        samples_per_phone: int,
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        contents = [read_manifest(path, kind="recording") for path in manifests]
        self.records = [content.records for content in contents]
        plan = MixturePlan(
            sizes=tuple(map(len, self.records)),
            weights=tuple(weights) if weights else (1.0,) * len(contents),
            seed=seed,
        )
        super().__init__(plan, batch_size=batch_size, rank=rank, world_size=world_size)
        self.sample_rate, self.num_samples = sample_rate, num_samples
        middles = np.arange(num_samples // samples_per_phone) + 0.5
        self._phone_times = middles * samples_per_phone / sample_rate
        self._packs: dict[str, AudioPack] = {}

    def _size(self, draw: Draw) -> int:
        # the stream spreads sizes by up to a tenth; batches of equal stretches shall hold what was asked for
        return int(self.num_samples / 1.1)

    def _make(self, draw: Draw, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        record = self.records[draw.source][draw.index]
        clip = Clip.of(record)
        pack = self._packs.setdefault(clip.audio, AudioPack(Path(clip.audio)))
        wanted = self.num_samples / self.sample_rate
        start = generator.uniform(0.0, max(clip.duration - wanted, 0.1 * clip.duration))
        seconds = min(wanted, clip.duration - start)
        if seconds <= 0:
            raise DataError("no sound")
        samples = soxr.resample(pack.read(clip.offset + start, seconds), pack.sample_rate, self.sample_rate)
        stretch = torch.zeros(self.num_samples)
        samples = torch.from_numpy(samples[: self.num_samples].astype(np.float32))
        stretch[: len(samples)] = samples
        return stretch, torch.from_numpy(phones_at(record.get("phones"), start + self._phone_times))

    def _collate(self, samples: list[tuple[Tensor, Tensor]]) -> WaveformBatch:
        waveforms, phones = zip(*samples, strict=True)
        return WaveformBatch(waveform=torch.stack(waveforms), phones=torch.stack(phones))
