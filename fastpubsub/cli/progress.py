"""A bar on standard error, for what takes long, when somebody looks at it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE_SECONDS = 1.0
"""What is done by then needs no bar."""


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes the amount done so far; without a total it shows no end."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    bar = _Bar(title, total)
    try:
        yield bar.update
    finally:
        bar.stop()


class _Bar:
    def __init__(self, title: str, total: int | None) -> None:
        self._title = title
        self._total = total
        self._since = time.monotonic()
        self._progress: Progress | None = None

    def update(self, done: int) -> None:
        if self._progress is None:
            if time.monotonic() - self._since < PATIENCE_SECONDS:
                return
            self._progress = _started(self._title, self._total)
        self._progress.update(self._progress.task_ids[0], completed=done)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def _started(title: str, total: int | None) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    if total is not None:
        columns.append(TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(title, total=total)
    bar.start()
    return bar
