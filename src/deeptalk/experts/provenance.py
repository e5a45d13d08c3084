"""What a load was measured on, so that a partition can be traced to its model and its data."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deeptalk.files import digest_of
from deeptalk.model import DeepTalk
from deeptalk.model.identity import model_hash


def measured_on(model: DeepTalk, *, data: Path, manifests: Iterable[str]) -> dict[str, Any]:
    """Hashes of sixteen hex digits: ``model_hash``, and ``data_hashes`` of the manifests by their names.

    A manifest that ``data`` doesn't hold as a file has None.
    """
    paths = {name: data / f"{name.removesuffix('.jsonl')}.jsonl" for name in sorted(set(manifests))}
    hashes = {name: digest_of(path) for name, path in paths.items()}
    return {"model_hash": model_hash(model), "data_hashes": hashes}
