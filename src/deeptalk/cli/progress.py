"""Progress bars for long verbs, drawn on standard error so that standard output stays clean."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@contextmanager
def bars() -> Iterator[Callable[..., None]]:
    """A function of what is being done, how much is done, of how much or None, and a note; a bar per name."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def show(name: str, done: int, total: int | None, note: str = "") -> None:
        progress.start()
        if name not in tasks:
            tasks[name] = progress.add_task(name, total=total, note=note)
        progress.update(tasks[name], completed=done, total=total, note=note)

    try:
        yield show
    finally:
        if tasks:
            progress.stop()
