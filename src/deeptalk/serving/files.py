"""Whole sound files as HTTP carries them."""

import io

import soundfile
import torch

from deeptalk.audio import check_waveform, resample
from deeptalk.audio.waveform import MAX_CHANNELS, SAMPLE_RATES_HZ
from deeptalk.errors import AudioError
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.turns import HEARD_RATE
from deeptalk.serving.wire import ClientError
from deeptalk.shapes import Float, Tensor

FORMS = {
    "wav": ("WAV", "PCM_16", "audio/wav"),
    "flac": ("FLAC", "PCM_16", "audio/flac"),
    "mp3": ("MP3", "MPEG_LAYER_III", "audio/mpeg"),
    "opus": ("OGG", "OPUS", "audio/ogg"),
}
"""The container, the encoding and the media type of each kind of file."""

RAW = {"pcm16": "audio/pcm", "pcm": "audio/pcm"}
"""16-bit little-endian samples without a header."""


def check_form(form: object) -> str:
    """A kind of file that can be written here; ``invalid_value`` for any other."""
    known = [
        name for name, (container, coding, _) in FORMS.items() if soundfile.check_format(container, coding)
    ]
    if not isinstance(form, str) or form not in (*known, *RAW):
        raise ClientError("invalid_value", f"The format must be one of {', '.join((*known, *RAW))}.")
    return form


def encode_file(samples: Float[Tensor, "S"], *, form: str, sample_rate: int) -> bytes:
    """Samples as a file of a kind that ``check_form`` has let pass."""
    if form in RAW:
        return encode_pcm(samples)
    container, coding, _ = FORMS[form]
    file = io.BytesIO()
    data = samples.detach().cpu().float().clamp(-1.0, 1.0).numpy()
    soundfile.write(file, data, sample_rate, coding, format=container)
    return file.getvalue()


def media_type(form: str) -> str:
    """The media type of a kind of file."""
    return RAW[form] if form in RAW else FORMS[form][2]


def decode_file(data: bytes, *, name: str) -> Float[Tensor, "S"]:
    """A WAV, MP3, FLAC or OGG file as samples at 16 kHz; AudioError for what can't be answered."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            lowest, highest = SAMPLE_RATES_HZ
            if file.channels > MAX_CHANNELS or not lowest <= file.samplerate <= highest:
                raise AudioError(
                    f"{name}: {file.channels} channels at {file.samplerate} Hz; mono and stereo from "
                    f"{lowest} to {highest} Hz are understood."
                )
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, TypeError, ValueError, OSError, MemoryError) as error:
        raise AudioError(f"{name}: not audio that can be read; send WAV or MP3.") from error
    mono = torch.from_numpy(samples.mean(axis=1))
    check_waveform(mono, name=name, sample_rate=rate)
    return resample(mono, source_rate=rate, target_rate=HEARD_RATE)
