"""The folder in which the workers of a server count together, through prometheus_client.

prometheus_client is imported inside a function: it decides once, when it is imported, whether values are shared.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from uvicorn_worker import UvicornWorker

from fastpubsub.api.server import CannotServe

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where workers beat without touching a disk
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Of prometheus_client; a folder given in it is emptied and kept."""

METRICS_PREFIX = "fastpubsub-metrics-"


@contextmanager
def metrics_folder(workers: int) -> Iterator[None]:
    """The folder where several workers put their counts, so that a scrape of one returns the sum of all."""
    given = os.environ.get(METRICS_FOLDER)
    if workers == 1 and given is None:
        yield
        return
    if given is None:
        with _folder_of_this_run(Path(shared_memory() or tempfile.gettempdir())) as folder:
            os.environ[METRICS_FOLDER] = str(folder)
            yield
        return
    _empty(Path(given))
    yield


def _empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob("*.db"):
            left_over.unlink()
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CannotServe(
            f"{METRICS_FOLDER}: {folder} cannot be used: {error.strerror}; name a folder that this user may write to, "
            "or unset the variable"
        ) from None


@contextmanager
def _folder_of_this_run(parent: Path) -> Iterator[Path]:
    """Removed at the end, or at the next start when this process is killed: its lock is free then."""
    for left_behind in parent.glob(f"{METRICS_PREFIX}*"):
        with suppress(OSError), (left_behind / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left_behind)
    owner = os.getpid()
    unlocked = Path(tempfile.mkdtemp(prefix=f".{METRICS_PREFIX}", dir=parent))
    with (unlocked / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = unlocked.rename(parent / unlocked.name.removeprefix("."))
        try:
            yield folder
        finally:
            # Workers leave through here as well.
            if os.getpid() == owner:
                shutil.rmtree(folder, ignore_errors=True)


def forget_live_gauges(_arbiter: object, worker: UvicornWorker) -> None:
    if METRICS_FOLDER in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def shared_memory() -> str | None:
    return str(SHARED_MEMORY) if os.access(SHARED_MEMORY, os.W_OK) else None
