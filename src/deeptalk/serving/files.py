"""Whole sound files as HTTP carries them."""

import io

import soundfile

from deeptalk.serving.audio_formats import encode_pcm
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


def known_forms() -> list[str]:
    """The kinds of file for which there is an encoder here."""
    return [
        name for name, (container, coding, _) in FORMS.items() if soundfile.check_format(container, coding)
    ]


def check_form(form: object) -> str:
    """A kind of file that can be written here; ``invalid_value`` for any other."""
    known = known_forms()
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
