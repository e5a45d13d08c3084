"""Codes of recorded answers as manifests give them: arrays, lists or text files, in either order."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deeptalk.data.manifest import CODE_ORDERS, fault_of_code_rows
from deeptalk.data.packs import CodePack, CodeSpan
from deeptalk.errors import DataError

NUM_CODEBOOKS = 7
# Where each codebook of the breadth-first order stands in the depth-first one (method.md, section 5).
_BREADTH_IN_DEPTH = (0, 1, 4, 2, 3, 5, 6)


def read_codes(message: Mapping[str, Any], *, codebook_size: int) -> npt.NDArray[np.int64]:
    """The codes `[L, 7]` of a message, breadth-first whatever its `order`.

    `codes` is a list, a `.npy` or `.npz` file, or a text file of whole numbers, seven per frame. Of a `.npy`
    for many answers, `first_frame` and `num_frames` say where this one stands.
    Raises `DataError` with a countable reason where they can't be used.
    """
    order = message.get("order")
    if order not in CODE_ORDERS:
        raise DataError("unknown order of codes")
    raw = message["codes"]
    if isinstance(raw, list):
        rows = raw
    elif "first_frame" in message:
        rows = _from_shard(Path(str(raw)), message["first_frame"], message.get("num_frames"))
    else:
        rows = _from_file(Path(str(raw)))
    reason = fault_of_code_rows(rows, codebook_size=codebook_size)
    if reason is not None:
        raise DataError(reason)
    codes = np.asarray(rows, dtype=np.int64).reshape(-1, NUM_CODEBOOKS)
    return codes[:, _BREADTH_IN_DEPTH] if order == "depth" else codes


def _from_shard(path: Path, first: Any, number: Any) -> list[Any]:
    if not isinstance(first, int) or not isinstance(number, int):
        raise DataError("bad place of codes")
    try:
        return CodePack(path).read(CodeSpan(offset=first, length=number)).tolist()
    except (DataError, OSError, ValueError) as error:
        raise DataError("unreadable codes") from error


def _from_file(path: Path) -> list[Any]:
    try:
        if path.suffix == ".npy":
            return np.load(path).tolist()
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return arrays[arrays.files[0]].tolist()
        return [int(number) for number in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError, IndexError) as error:
        raise DataError("unreadable codes") from error
