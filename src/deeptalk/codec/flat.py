"""Levels of a multi-scale codec <-> flat codebooks of one frame rate.

A codec of rates 1:2:4 writes one code of level 1, two of level 2 and four of level 3 in each frame.
Breadth-first (ours) lists them level by level in time order; depth-first (Mini-Omni) walks the tree. Axes:
B batch, Q flat codebooks, T frames.
"""

from itertools import pairwise

import torch

from deeptalk.errors import ConfigError
from deeptalk.shapes import Int, Tensor

ORDERS = ("breadth", "depth")


def flatten(levels: list[Int[Tensor, "B _"]]) -> Int[Tensor, "B Q T"]:
    """One row per code of a frame, breadth-first; level 1 has one. The inverse of ``unflatten``."""
    frames = levels[0].shape[-1]
    rows = []
    for codes in levels:
        if codes.shape[-1] % frames:
            raise ConfigError(
                f"levels must hold whole multiples of {frames} codes, got {[c.shape[-1] for c in levels]}."
            )
        rows.append(codes.unflatten(-1, (frames, -1)).transpose(1, 2))
    return torch.cat(rows, dim=1)


def unflatten(codes: Int[Tensor, "B Q T"], *, rates: tuple[int, ...]) -> list[Int[Tensor, "B _"]]:
    """The codes of each level in time order; ``rates`` are codes per frame and level, such as (1, 2, 4)."""
    if sum(rates) != codes.shape[1]:
        raise ConfigError(f"codes have {codes.shape[1]} codebooks, but rates {rates} make {sum(rates)}.")
    return [level.transpose(1, 2).flatten(1) for level in codes.split(list(rates), dim=1)]


def breadth_from_depth(rates: tuple[int, ...]) -> tuple[int, ...]:
    """Where each breadth-first codebook stands in depth-first: (0, 1, 4, 2, 3, 5, 6) for rates 1:2:4."""
    _check_rates(rates)
    starts = [sum(rates[:level]) for level in range(len(rates))]
    walk: list[int] = []

    def visit(level: int, index: int) -> None:
        walk.append(starts[level] + index)
        if level + 1 < len(rates):
            ratio = rates[level + 1] // rates[level]
            for child in range(ratio):
                visit(level + 1, index * ratio + child)

    visit(0, 0)
    return tuple(walk.index(row) for row in range(sum(rates)))


def to_breadth(codes: Int[Tensor, "B Q T"], *, order: str, rates: tuple[int, ...]) -> Int[Tensor, "B Q T"]:
    """Codes stored in ``order`` as breadth-first ones; the inverse of ``from_breadth``."""
    if _checked(order) == "breadth":
        return codes
    return codes[:, list(breadth_from_depth(rates))]


def from_breadth(codes: Int[Tensor, "B Q T"], *, order: str, rates: tuple[int, ...]) -> Int[Tensor, "B Q T"]:
    """Breadth-first codes in another ``order``."""
    if _checked(order) == "breadth":
        return codes
    at = breadth_from_depth(rates)
    return codes[:, [at.index(row) for row in range(len(at))]]


def _checked(order: str) -> str:
    if order not in ORDERS:
        raise ConfigError(f"the order of codes must be one of {', '.join(ORDERS)}, got {order!r}.")
    return order


def _check_rates(rates: tuple[int, ...]) -> None:
    if not rates or rates[0] != 1 or any(b % a for a, b in pairwise(rates)):
        raise ConfigError(f"rates must start with 1 and each divide the next one, got {rates}.")
