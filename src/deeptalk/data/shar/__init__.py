"""Manifests as lhotse Shar (``deeptalk[lhotse]``), and back."""

from deeptalk.data.shar.reading import UnpackedShar, unpack_shar
from deeptalk.data.shar.writing import WrittenShar, write_shar

__all__ = ["UnpackedShar", "WrittenShar", "unpack_shar", "write_shar"]
