"""A folder that appears whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from deeptalk.errors import CheckpointError


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``target`` at the end; after an error nothing is left of it.

    Raises:
        CheckpointError: ``target`` is taken, or can't be written.
    """
    check_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as unfinished:
            made = Path(unfinished) / "made"
            made.mkdir()
            yield made
            for path in made.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)  # the libraries leave some private
            made.replace(target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{target} can't be written: {error}") from error


def check_free(target: Path) -> None:
    """Refuse a place where something is already; an empty folder is as good as none."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise CheckpointError(f"{target} exists already; give a new folder or remove it first.")
