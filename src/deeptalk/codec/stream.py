"""Decoding while codes arrive: the stream itself, and the way there for decoders of finite reach.

Axes: B batch, Q codebooks, T frames, S samples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from deeptalk.codec.base import Codec
from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Int, Tensor


class CodecStream:
    """One clip's decoder: push frames of codes as they come, ``finish`` at the end."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._state = codec.decode_start(1)

    def push(self, codes: Int[Tensor, "Q T"]) -> Float[Tensor, "S"]:
        """The samples that no later frame can change."""
        check_codes(codes, num_codebooks=self._codec.num_codebooks, codebook_size=self._codec.codebook_size)
        samples, self._state = self._codec.decode_step(codes[None], self._state)
        return samples[0]

    def finish(self) -> Float[Tensor, "S"]:
        """The samples that waited for the look-ahead; the stream then stands at the start of a new clip."""
        nothing = torch.zeros(1, self._codec.num_codebooks, 0, dtype=torch.long)
        samples, _ = self._codec.decode_step(nothing, self._state, is_last=True)
        self._state = self._codec.decode_start(1)
        return samples[0]


def check_codes(codes: Tensor, *, num_codebooks: int, codebook_size: int) -> None:
    """Refuse codes of another number of codebooks or with ids outside of them (such as special ids)."""
    if codes.ndim < 2 or codes.shape[-2] != num_codebooks:
        raise ConfigError(f"codes must have {num_codebooks} codebooks, got shape {tuple(codes.shape)}.")
    if codes.numel() and not (int(codes.min()) >= 0 and int(codes.max()) < codebook_size):
        raise ConfigError(
            f"codes must be from 0 to {codebook_size - 1}, got {int(codes.min())} to {int(codes.max())}; "
            "special ids must be removed before decoding."
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WindowState:
    """The frames still needed as context, and how many of the last ones have no samples yet."""

    codes: Int[Tensor, "B Q T"]
    num_pending: int


def decode_windowed(
    decode: Callable[[Tensor], Tensor],
    codes: Int[Tensor, "B Q T"],
    state: WindowState,
    *,
    left_frames: int,
    look_ahead_frames: int,
    samples_per_frame: int,
    is_last: bool,
) -> tuple[Float[Tensor, "B S"], WindowState]:
    """Decode again what is kept, together with the new frames, and cut out the samples that are certain.

    Exact where a frame depends on at most ``left_frames`` before and ``look_ahead_frames`` after it.
    """
    known = torch.cat([state.codes, codes.to(state.codes)], dim=-1)
    pending = state.num_pending + codes.shape[-1]
    ready = pending if is_last else max(0, pending - look_ahead_frames)
    total = known.shape[-1]
    first = total - pending
    if ready:
        samples = decode(known)[:, first * samples_per_frame : (first + ready) * samples_per_frame]
    else:
        samples = torch.zeros(len(known), 0, device=known.device)
    kept = known[..., max(0, first + ready - left_frames) :]
    return samples, WindowState(codes=kept, num_pending=pending - ready)
