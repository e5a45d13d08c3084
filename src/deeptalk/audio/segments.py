"""Long recordings cut where nobody speaks."""

import torch

from deeptalk.audio.waveform import check_waveform
from deeptalk.errors import AudioError
from deeptalk.shapes import Float, Tensor


def split_at_pauses(
    samples: Float[Tensor, "S"],
    *,
    sample_rate: int = 16_000,
    longest_seconds: float = 30.0,
    search_seconds: float = 10.0,
    pause_seconds: float = 0.2,
) -> list[Float[Tensor, "_"]]:
    """Consecutive parts of at most ``longest_seconds`` each; together they are the recording.

    A cut lies in the middle of the quietest ``pause_seconds`` within the last ``search_seconds`` before the
    limit, or within the second half of a part where that is shorter.
    """
    longest = int(longest_seconds * sample_rate)
    search = min(int(search_seconds * sample_rate), longest // 2)
    parts: list[Tensor] = []
    while len(samples) > longest:
        start = longest - search
        cut = start + _quietest(samples[start:longest], int(pause_seconds * sample_rate))
        parts.append(samples[:cut])
        samples = samples[cut:]
    return [*parts, samples]


def audible_parts(
    samples: Float[Tensor, "S"], *, longest_seconds: float, sample_rate: int = 16_000
) -> list[Float[Tensor, "_"]]:
    """The parts of `split_at_pauses` in which there is something to hear; all where there is nothing."""
    parts = split_at_pauses(samples, longest_seconds=longest_seconds, sample_rate=sample_rate)
    return [part for part in parts if _is_audible(part, sample_rate)] or parts


def _is_audible(part: Float[Tensor, "S"], sample_rate: int) -> bool:
    """Neither silent nor the tenth of a second that was left."""
    try:
        check_waveform(part, name="part", sample_rate=sample_rate)
    except AudioError:
        return False
    return True


def _quietest(samples: Float[Tensor, "S"], window: int) -> int:
    """The middle of the ``window`` samples that hold the least energy."""
    energy = torch.cat([samples.new_zeros(1, dtype=torch.float64), samples.double().square().cumsum(0)])
    return int((energy[window:] - energy[:-window]).argmin()) + window // 2
