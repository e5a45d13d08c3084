"""The tensors of a pickle as safetensors, in a process of its own that may be lost.

A pickle can run code while it is opened. Here nothing is opened but the bytes of the SHA-256 that was given,
and of these nothing but tensors: ``python -I -m deeptalk.cli.unpickle IN OUT SHA256``.
"""

import hashlib
import io
import re
import subprocess
import sys
from pathlib import Path

from deeptalk.errors import CheckpointError

MISTAKE = 2
PICKLE = "pytorch_model.bin"


def published_pickle(hub_id: str, *, revision: str) -> tuple[Path, str | None]:
    """A model's pickle on the hub, in the cache, and the SHA-256 that the hub tells of it, if it does.

    The digest says that the file is the published one, not that it is harmless.

    Raises:
        CheckpointError: the hub has no such file, or can't be reached and the cache lacks it.
    """
    from huggingface_hub import HfApi, hf_hub_download

    try:
        path = Path(hf_hub_download(hub_id, PICKLE, revision=revision))
    except Exception as error:  # the libraries of the network raise families of their own
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{hub_id} has no safetensors, and no {PICKLE} either: {reason}") from error
    try:
        (told,) = HfApi().get_paths_info(hub_id, PICKLE, revision=revision)
    except Exception:
        return path, None  # the file is in the cache, and nobody can be asked
    lfs = getattr(told, "lfs", None)
    return path, None if lfs is None else str(lfs.sha256)


def unpickle(source: Path, target: Path, *, sha256: str) -> None:
    """Write the tensors of ``source`` to ``target`` by another process; this one never opens the pickle.

    ``sha256`` are the 64 hex digits that whoever published the file gives for it.

    Raises:
        CheckpointError: the digest is none or another one, or the file holds more than tensors.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise CheckpointError(f"A SHA-256 has 64 hex digits, got {sha256!r}.")
    command = [sys.executable, "-I", "-m", __name__, str(source), str(target), sha256.lower()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["it said nothing"]
        raise CheckpointError(f"{source} was not opened: {reason[-1]}")


def _main(source: str, target: str, expected: str) -> None:
    content = Path(source).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        _leave(f"its SHA-256 is {found}, not {expected}.")
    import torch
    from safetensors.torch import save_file

    try:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, target)
    except Exception as error:  # whatever a foreign pickle runs into
        _leave(f"it holds more than tensors by name ({' '.join(str(error).split())[:300]}).")


def _leave(reason: str) -> None:
    print(reason, file=sys.stderr)
    raise SystemExit(MISTAKE)


if __name__ == "__main__":
    _main(*sys.argv[1:])
