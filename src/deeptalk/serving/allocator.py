"""Memory that was freed and that the C library keeps for later."""

import ctypes
import sys


def return_freed_memory() -> None:
    """Give it back to the system where the C library can be asked to, as glibc can.

    Else a server holds what its busiest moment took: glibc keeps freed pieces that lie below used ones.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
