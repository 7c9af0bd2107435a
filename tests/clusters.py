"""Clusters that are made once and copied: initdb and the migrations take longer than most tests of them."""

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from fastpubsub.database import migrations
from fastpubsub.embedded import EmbeddedPostgres


@functools.cache
def made(*, migrated: bool) -> Path:
    """Its folder, for this process."""
    folder = Path(tempfile.mkdtemp(prefix="fastpubsub-cluster-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    data = folder / "data"
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
