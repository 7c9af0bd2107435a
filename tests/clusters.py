"""Clusters that are made once and copied: initdb and the migrations take longer than most tests of them.

In memory, where there is room: to copy one to a disk takes eight times as long.
"""

import atexit
import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fastpubsub.database import migrations
from fastpubsub.embedded import EmbeddedPostgres, locked
from tests import harness


@contextmanager
def folder() -> Iterator[Path]:
    """For the data of clusters. It is locked: what a killed run has left is removed by the next one."""
    made = Path(tempfile.mkdtemp(prefix=f"{harness.PREFIX}-", dir=harness.roomy_folder()))
    try:
        with locked(made):
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


class Shared:
    """The folder of those that are copied: of this process, or of the one that started it and others."""

    def __init__(self) -> None:
        self.place: Path | None = None

    def share(self) -> str:
        """Makes it, until this process ends."""
        if self.place is None:
            stack = ExitStack()
            atexit.register(stack.close)
            self.place = stack.enter_context(folder())
        return str(self.place)

    def join(self, place: str) -> None:
        self.place = Path(place)


_shared = Shared()
share, join = _shared.share, _shared.join


def made(*, migrated: bool) -> Path:
    """Its folder. The first who needs it makes it, and the others wait."""
    wanted = Path(share()) / ("migrated" if migrated else "empty")
    if not wanted.exists():
        empty = None if not migrated else made(migrated=False)
        with wanted.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not wanted.exists():
                make(wanted, empty)
    return wanted / "cluster"


def make(wanted: Path, empty: Path | None) -> None:
    """It gets its name when it is whole. With an empty one, a copy of that is migrated."""
    data = wanted.with_suffix(".new")
    shutil.rmtree(data, ignore_errors=True)
    if empty is not None:
        copy(empty, data)
    with EmbeddedPostgres(data, settings={"fsync": "off"}) as postgres:
        if empty is not None:
            migrations.upgrade(postgres.url())
    data.rename(wanted)


def fill(data: Path, *, migrated: bool = False) -> Path:
    """What an embedded PostgreSQL of the newest version would make there by itself; `migrated`: with the schema."""
    return copy(made(migrated=migrated), data)


def copy(cluster: Path, data: Path) -> Path:
    data.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", cluster, data / "cluster"], check=True)
    return data
