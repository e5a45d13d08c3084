"""The parts of a pocket evaluation that have ended, kept so that one that was interrupted goes on."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deeptalk.errors import DataError, reason
from deeptalk.evaluation.benchmarks.records import append_line, read_appended
from deeptalk.evaluation.pocket import Part, PocketReport


class PocketProgress:
    """A file of ended parts; ``about`` is all that decides what comes of them."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Read what is there.

        Raises:
            DataError: the file is of another model or of other settings, or no such file.
        """
        self.path, self.done = path, dict[str, PocketReport]()
        rows = [row.values for row in read_appended(path)]
        try:
            if rows and rows[0]["about"] != dict(about):
                raise DataError(
                    f"{path} holds the beginning of an evaluation of another model or of other settings; "
                    "remove it, or write to another place."
                )
            self.done = {row["part"]: PocketReport.from_dict(row) for row in rows[1:]}
        except (LookupError, TypeError) as error:
            raise DataError(
                f"{path}: not the progress of an evaluation ({reason(error)}); remove it."
            ) from error
        if not rows:
            append_line(path, {"about": dict(about)})

    def keep(self, name: Part, part: PocketReport) -> None:
        """Note what came of a part."""
        append_line(self.path, {"part": name, **asdict(part)})
