"""Sounds and pictures that stand inside a page: clips as MP3, their spectrograms as JPEG."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import soundfile

from deeptalk.audio import MelSpec, log_mel, resample
from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Tensor

_QUIETEST, _LOUDEST = -1.0, 1.5
"""The ends of the colours, as ``log_mel`` scales."""

_COMPRESSION = 0.9
"""Of 0 to 1: about 35 kbit/s at 24 kHz."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A sound of some seconds and its log-mel spectrogram (80 bins, low ones below), as data URLs."""

    seconds: float
    sound: str
    picture: str


def clip_of(samples: Float[Tensor, "S"], *, sample_rate: int) -> Clip:
    """A clip for a page.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.image import imsave
    except ImportError as error:
        raise ConfigError("spectrograms need matplotlib: pip install 'deeptalk[plots]'.") from error
    sound, picture, spec = BytesIO(), BytesIO(), MelSpec()
    samples = samples.detach().cpu()
    soundfile.write(sound, samples.numpy(), sample_rate, format="MP3", compression_level=_COMPRESSION)
    heard = resample(samples, source_rate=sample_rate, target_rate=spec.sample_rate)
    bins = log_mel(heard[None], spec=spec)[0].numpy()
    imsave(picture, bins, cmap="magma", vmin=_QUIETEST, vmax=_LOUDEST, origin="lower", format="jpg")
    return Clip(
        seconds=len(samples) / sample_rate,
        sound=_data_url("audio/mpeg", sound),
        picture=_data_url("image/jpeg", picture),
    )


def _data_url(kind: str, content: BytesIO) -> str:
    return f"data:{kind};base64,{b64encode(content.getvalue()).decode()}"
