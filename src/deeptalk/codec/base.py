"""What every codec offers: a clock, ``encode``/``decode``, and a decoder that runs step by step.

Axes: B batch, S samples, Q codebooks, T frames.
"""

from typing import Any, Protocol, runtime_checkable

from deeptalk.shapes import Float, Int, Tensor


@runtime_checkable
class Codec(Protocol):
    """Waveform <-> codes at a fixed number of samples per frame, ids of each codebook from 0 up.

    ``decode_step`` called on any chunks of the codes, ``is_last`` at the end, gives the samples of
    ``decode``.
    """

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        ...

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame of codes stands for."""
        ...

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        ...

    @property
    def num_codebooks(self) -> int:
        """Codes per frame, breadth-first over the levels."""
        ...

    @property
    def codebook_size(self) -> int:
        """Ids per codebook."""
        ...

    @property
    def look_ahead_frames(self) -> int:
        """How many later frames ``decode_step`` waits for before it gives a frame's samples."""
        ...

    def encode(self, waveform: Float[Tensor, "B S"]) -> Int[Tensor, "B Q T"]:
        """The codes of whole clips; the last frame is filled with silence."""
        ...

    def decode(self, codes: Int[Tensor, "B Q T"]) -> Float[Tensor, "B S"]:
        """The samples of whole clips."""
        ...

    def decode_start(self, batch: int = 1) -> Any:
        """The state of a decoder that has seen nothing."""
        ...

    def decode_step(
        self, codes: Int[Tensor, "B Q T"], state: Any, *, is_last: bool = False
    ) -> tuple[Float[Tensor, "B S"], Any]:
        """The samples that are certain after these further codes, and the next state."""
        ...
