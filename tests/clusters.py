"""Clusters that are made once and copied: initdb and the migrations take longer than most tests of them.

In memory, where there is room: to copy one to a disk takes eight times as long.
"""

import atexit
import functools
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


@functools.cache
def made(*, migrated: bool) -> Path:
    """Its folder, for this process."""
    stack = ExitStack()
    atexit.register(stack.close)
    data = stack.enter_context(folder()) / "data"
    if migrated:
        fill(data)
    with EmbeddedPostgres(data, settings={"fsync": "off"}) as postgres:
        if migrated:
            migrations.upgrade(postgres.url())
    return data / "cluster"


def fill(data: Path, *, migrated: bool = False) -> Path:
    """What an embedded PostgreSQL of the newest version would make there by itself; `migrated`: with the schema."""
    data.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", made(migrated=migrated), data / "cluster"], check=True)
    return data
