"""The stock model as a folder of its own, as `open_backbone` opens it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from transformers.utils import logging as hf_logging

from deeptalk.backbone.backbone import Backbone
from deeptalk.shapes import Tensor


def save_stock(
    backbone: Backbone,
    folder: Path,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    shard_size: str | None = None,
) -> None:
    """Write a stock checkpoint of ``transformers``; equal tensors give equal files, bit for bit.

    ``tensors`` by stock names take the place of the model's own, where it isn't a stock model any more. One
    of more than ``shard_size`` (such as ``5GB``; the library's own size unless given) becomes several files.
    """
    options: dict[str, Any] = {} if shard_size is None else {"max_shard_size": shard_size}
    with quiet():
        backbone.model.save_pretrained(
            folder, state_dict=None if tensors is None else dict(tensors), **options
        )


def stock_hash(folder: Path) -> str:
    """Sixteen hex digits of config and weights of a folder that `save_stock` wrote."""
    digest = sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        with path.open("rb") as file:
            digest.update(f"{path.name} {file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


@contextmanager
def quiet() -> Iterator[None]:
    """Open and save without the progress bars that ``transformers`` draws."""
    draws = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if draws:
            hf_logging.enable_progress_bar()
