"""Waveforms and their log-mel spectrograms: the first two steps of the signal path."""

from deeptalk.audio.log_mel import MelSpec, log_mel
from deeptalk.audio.segments import audible_parts, split_at_pauses
from deeptalk.audio.stream import LogMelStream
from deeptalk.audio.waveform import (
    check_samples,
    check_waveform,
    decode_waveform,
    load_waveform,
    resample,
    save_waveform,
    sound_format,
)

__all__ = [
    "LogMelStream",
    "MelSpec",
    "audible_parts",
    "check_samples",
    "check_waveform",
    "decode_waveform",
    "load_waveform",
    "log_mel",
    "resample",
    "save_waveform",
    "sound_format",
    "split_at_pauses",
]
