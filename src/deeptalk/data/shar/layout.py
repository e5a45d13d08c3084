"""What a Shar folder of ours looks like.

One cut is one stretch of sound, or a record without any: field ``recording`` holds it as FLAC of 16 bits,
field ``codes`` holds an answer's codes, int16 ``[L, 7]``, breadth-first. A record's cuts stand in a row, and
the first of them carries the rest of the record, so that nothing is lost on the way back.
"""

from typing import Any

from deeptalk.errors import ConfigError

SHAR, NOTES = "shar", "shards"
"""The folder that lhotse opens (``CutSet.from_shar(in_dir=…)``), and the one that says what is whole."""

RECORD, PLACE = "record", "message"
"""What a cut says of its record: all of it but sound and codes, and which turn of it the cut is."""


def need_lhotse() -> Any:
    """The library; `ConfigError` names the extra where it isn't installed."""
    try:
        import lhotse  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("Shar needs lhotse: pip install 'deeptalk[lhotse]'.") from error
    return lhotse
