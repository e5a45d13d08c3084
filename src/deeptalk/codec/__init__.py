"""Waveform <-> codes ``[B, Q, T]``, offline and while they arrive."""

from deeptalk.codec.base import Codec
from deeptalk.codec.fake import SineCodec
from deeptalk.codec.pocket import PocketCodec, PocketCodecConfig
from deeptalk.codec.snac import SnacCodec, SnacConfig
from deeptalk.codec.stream import CodecStream
from deeptalk.codec.weights import load_codec, save_codec

__all__ = [
    "Codec",
    "CodecStream",
    "PocketCodec",
    "PocketCodecConfig",
    "SineCodec",
    "SnacCodec",
    "SnacConfig",
    "load_codec",
    "save_codec",
]
