"""The log-mel spectrogram while samples arrive: the streaming twin of ``log_mel``."""

import torch

from deeptalk.audio.log_mel import MelSpec, log_power, mirror_ends, scale
from deeptalk.shapes import Float, Tensor


class LogMelStream:
    """Samples in, mel frames out; all frames together equal ``log_mel`` of all samples, for any chunking.

    With a ``fixed`` reference each frame is given as soon as its window is complete (n_fft / 2 samples after
    its centre). With ``clip`` the scale is known only at the end, so ``finish`` gives all frames at once.
    """

    def __init__(self, spec: MelSpec) -> None:
        self.spec = spec
        self._pending: Float[Tensor, "S"] = torch.zeros(0)
        self._num_samples = 0
        self._num_frames = 0
        self._is_open = True
        self._unscaled: list[Float[Tensor, "M F"]] = []

    def push(self, samples: Float[Tensor, "S"]) -> Float[Tensor, "M F"]:
        """Take the next samples (any number) and give the frames they complete."""
        assert self._is_open, "the stream has been finished"
        self._num_samples += len(samples)
        self._pending = torch.cat([self._pending.to(samples.device), samples])
        return self._give(self._num_complete())

    def finish(self) -> Float[Tensor, "M F"]:
        """Give the last frames, which see the end of the clip mirrored; the stream takes no more samples."""
        frames = self._give(self._num_samples // self.spec.hop_length - self._num_frames)
        self._is_open = False
        if self.spec.reference == "clip" and self._unscaled:
            frames = scale(torch.cat(self._unscaled, dim=1)[None], spec=self.spec)[0]
        self._pending, self._unscaled = self._pending[:0], []
        return frames

    def _num_complete(self) -> int:
        """Frames not yet given whose windows end within the samples, once the start can be mirrored."""
        half = self.spec.n_fft // 2
        if self._num_samples <= half:
            return 0
        return max(0, (self._num_samples - half) // self.spec.hop_length + 1 - self._num_frames)

    def _give(self, num_frames: int) -> Float[Tensor, "M F"]:
        if num_frames <= 0:
            return self._pending.new_zeros(self.spec.num_mels, 0)
        left = 0 if self._num_frames else self.spec.n_fft // 2
        padded = mirror_ends(self._pending[None], left=left, num_frames=num_frames, spec=self.spec)
        power = log_power(padded, spec=self.spec)
        self._num_frames += num_frames
        self._pending = torch.cat([padded[0, :left], self._pending])[num_frames * self.spec.hop_length :]
        if self.spec.reference == "fixed":
            return scale(power, spec=self.spec)[0]
        self._unscaled.append(power[0])
        return self._pending.new_zeros(self.spec.num_mels, 0)
