"""Where the user's turns begin and end, and a detector of voice by energy and spectrum, without a model.

Axes: S samples at 16 kHz.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from deeptalk.errors import ConfigError
from deeptalk.serving.settings import TurnDetection
from deeptalk.serving.turns import HEARD_RATE
from deeptalk.shapes import Float, Tensor

FRAME_MS = 20
FRAME = HEARD_RATE * FRAME_MS // 1000
SPEECH_BAND_HZ = (150, 4_000)

QUIET_DB = 40.0
"""So far under the loudest moment of a turn, nothing is said."""

LEAD_FRAMES, TAIL_FRAMES = 4, 5
"""What a turn keeps of such quiet at its ends; more of it would only take positions of the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How much voice it takes to be heard, in milliseconds, and how much louder over an answer.

    A turn begins after ``onset_ms`` of voice. Over an answer that is audible it takes ``barge_in_ms`` of
    voice within ``window_ms``; less, followed by ``silence_ms`` of silence, is a backchannel and changes
    nothing.
    """

    onset_ms: int = 80
    barge_in_ms: int = 350
    window_ms: int = 600
    silence_ms: int = 250
    louder_db: float = 6.0

    def __post_init__(self) -> None:
        for name in ("onset_ms", "barge_in_ms"):
            if not FRAME_MS <= getattr(self, name) <= self.window_ms:
                raise ConfigError(
                    f"{name} must be from {FRAME_MS} to {self.window_ms}, got {getattr(self, name)}."
                )
        if self.silence_ms < FRAME_MS or self.louder_db < 0:
            raise ConfigError(
                f"silence_ms must be {FRAME_MS} or more and louder_db no less than 0, "
                f"got {self.silence_ms} and {self.louder_db:g}."
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Heard:
    """What has happened: a turn begins, goes on (``samples``) or ends, or a backchannel was dropped.

    ``at_ms`` counts from the first sample of the session. Quiet at both ends of a turn is in its time, and
    but for a moment not in its samples.
    """

    kind: Literal["started", "sound", "stopped", "backchannel"]
    at_ms: int
    samples: Float[Tensor, "S"]


class Voice(Protocol):
    """Tells voice from anything else, frame by frame; it may remember the frames before.

    It may notice a voice so many frames late.
    """

    late_frames: int

    def is_voice(self, frame: np.ndarray, *, louder_db: float = 0.0) -> bool:
        """Whether the next frame (20 ms at 16 kHz) holds voice, so much louder than else needed."""
        ...


class LoudVoice:
    """Voice is louder than the noise around it by a margin, and not flat as noise is."""

    late_frames = 0

    def __init__(self, threshold: float) -> None:
        self._margin_db = 4.0 + 16.0 * threshold
        self._floor_db = -60.0
        low, high = (hertz * FRAME // HEARD_RATE for hertz in SPEECH_BAND_HZ)
        self._band = slice(low, high)
        self._window = np.hanning(FRAME).astype(np.float32)

    def is_voice(self, frame: np.ndarray, *, louder_db: float = 0.0) -> bool:
        """Judge one frame; the noise floor follows at once downwards and slowly upwards."""
        power = np.abs(np.fft.rfft(frame * self._window)[self._band]) ** 2 + 1e-12
        level_db = level_of(frame)
        is_loud = level_db > max(self._floor_db, -60.0) + self._margin_db + louder_db
        flatness = float(np.exp(np.mean(np.log(power))) / np.mean(power))
        is_voice = is_loud and flatness < 0.4
        rise = 0.02 if is_voice else 0.5
        self._floor_db = min(level_db, self._floor_db + rise)
        return is_voice


def level_of(frame: np.ndarray) -> float:
    """The power of a frame in dB under full scale, at least -100."""
    return 10.0 * float(np.log10(np.mean(frame.astype(np.float64) ** 2) + 1e-10))


class TurnDetector:
    """Samples in, the turns within them out. While nobody speaks it keeps the last moments only."""

    def __init__(
        self,
        settings: TurnDetection,
        *,
        longest_seconds: float,
        first_sample: int = 0,
        patience: Patience | None = None,
        new_voice: Callable[[float], Voice] = LoudVoice,
    ) -> None:
        self._settings, self._patience = settings, patience or Patience()
        self._voice = new_voice(settings.threshold)
        self._padding = settings.prefix_padding_ms // FRAME_MS + self._voice.late_frames
        self._longest = int(longest_seconds * 1000) // FRAME_MS
        self._pending = np.zeros(0, dtype=np.float32)
        self._start = first_sample
        self._num_frames = 0
        self._kept: deque[np.ndarray] = deque()
        self._voiced: deque[int] = deque()
        self._is_speaking = False
        self._first_frame = 0
        self._last_certain = 0
        self._peak_db = 0.0
        self._quiet: list[np.ndarray] = []

    @property
    def is_speaking(self) -> bool:
        """Whether a turn has begun and not ended."""
        return self._is_speaking

    @property
    def num_samples(self) -> int:
        """Samples of the session so far."""
        return self._start + self._num_frames * FRAME + len(self._pending)

    def take_kept(self) -> Float[Tensor, "S"]:
        """The last moments of a silence, which are then forgotten."""
        kept = [torch.from_numpy(frame) for frame in self._kept]
        self._kept.clear()
        self._voiced.clear()
        return torch.cat([torch.zeros(0), *kept])

    def push(self, samples: Float[Tensor, "S"], *, is_audible: bool) -> list[Heard]:
        """Take further samples; ``is_audible`` while the user hears an answer."""
        self._pending = np.concatenate([self._pending, samples.numpy()])
        found: list[Heard] = []
        while len(self._pending) >= FRAME:
            frame, self._pending = self._pending[:FRAME], self._pending[FRAME:]
            found += self._speaking(frame) if self._is_speaking else self._waiting(frame, is_audible)
            self._num_frames += 1
        return found

    def _waiting(self, frame: np.ndarray, is_audible: bool) -> list[Heard]:
        patience = self._patience
        if self._voice.is_voice(frame, louder_db=patience.louder_db if is_audible else 0.0):
            self._voiced.append(self._num_frames)
        self._kept.append(frame)
        found: list[Heard] = []
        if self._voiced and self._since(self._voiced[-1]) >= patience.silence_ms:
            if is_audible:
                found = [self._heard("backchannel", self._voiced[0], [])]
            self._voiced.clear()
        self._drop_old()
        needed = patience.barge_in_ms if is_audible else patience.onset_ms
        if len(self._voiced) * FRAME_MS >= needed:
            return [*found, self._begin()]
        padding = self._padding
        most = padding + (self._num_frames - self._voiced[0] + 1 if self._voiced else 0)
        while len(self._kept) > max(most, padding):
            self._kept.popleft()
        return found

    def _begin(self) -> Heard:
        """A turn begins with its first voiced frame and what led up to it."""
        onset = self._voiced[0]
        length = self._num_frames - onset + 1 + self._padding
        kept = list(self._kept)[-length:]
        self._first_frame = self._num_frames - len(kept) + 1
        self._is_speaking, self._last_certain = True, self._num_frames
        self._kept.clear()
        levels = [level_of(frame) for frame in kept]
        self._peak_db = max(levels)
        first = next(n for n, level in enumerate(levels) if level > self._peak_db - QUIET_DB)
        return self._heard("started", self._first_frame, kept[max(0, first - LEAD_FRAMES) :])

    def _speaking(self, frame: np.ndarray) -> list[Heard]:
        is_voice, level = self._voice.is_voice(frame), level_of(frame)
        self._peak_db = max(self._peak_db, level)
        if is_voice:
            self._voiced.append(self._num_frames)
            self._drop_old()
            if len(self._voiced) * FRAME_MS >= self._patience.onset_ms:
                self._last_certain = self._num_frames
        found = self._sounding(frame, is_quiet=not is_voice and level <= self._peak_db - QUIET_DB)
        is_silent = self._since(self._voiced[-1]) >= self._settings.silence_duration_ms
        is_vain = self._since(self._last_certain) >= self._settings.forced_end_ms
        if is_silent or is_vain or self._num_frames - self._first_frame + 1 >= self._longest:
            self._is_speaking = False
            self._voiced.clear()
            self._quiet.clear()
            found.append(self._heard("stopped", self._num_frames + 1, []))
        return found

    def _sounding(self, frame: np.ndarray, *, is_quiet: bool) -> list[Heard]:
        """The frame as sound of the turn; quiet is held back until something follows it."""
        if is_quiet:
            self._quiet.append(frame)
            return (
                [self._heard("sound", self._num_frames, [frame])] if len(self._quiet) <= TAIL_FRAMES else []
            )
        held, self._quiet = self._quiet[TAIL_FRAMES:], []
        return [self._heard("sound", self._num_frames - len(held), [*held, frame])]

    def _drop_old(self) -> None:
        """Forget the voiced frames that are too long ago to count together with later ones."""
        while self._voiced and self._since(self._voiced[0]) > self._patience.window_ms:
            self._voiced.popleft()

    def _since(self, frame_number: int) -> int:
        """Milliseconds from the end of a frame to the end of the current one."""
        return (self._num_frames - frame_number) * FRAME_MS

    def _heard(
        self,
        kind: Literal["started", "sound", "stopped", "backchannel"],
        frame_number: int,
        frames: list[np.ndarray],
    ) -> Heard:
        samples = torch.from_numpy(np.concatenate(frames)) if frames else torch.zeros(0)
        start_ms = self._start * 1000 // HEARD_RATE
        return Heard(kind=kind, at_ms=start_ms + frame_number * FRAME_MS, samples=samples)
