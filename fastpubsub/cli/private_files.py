"""Files with secrets: nobody else may read them, and nothing that somebody else could have put there is believed."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OTHERS = 0o077
OTHERS_WRITE = 0o022
OURS = 0o700


class Untrusted(Exception):
    """Says what is wrong with a file or a folder."""


def folder_of(variable: str, in_home: str) -> Path | None:
    """Ours below `$XDG_…_HOME`, or below the home; None without one."""
    given = Path(os.environ.get(variable) or ".")
    if not given.is_absolute():
        if os.environ.get("HOME") == "":  # which Python takes for the root of all
            return None
        try:
            given = Path.home() / in_home
        except RuntimeError:
            return None
    return given / "fastpubsub" if given.is_absolute() else None


def read(path: Path, max_bytes: int) -> bytes | None:
    """Returns None when there is no file. Raises OSError or Untrusted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Untrusted("it is a symbolic link, and must be a file") from None
        raise
    try:
        _check_file(os.fstat(descriptor), max_bytes)
        return os.read(descriptor, max_bytes)
    finally:
        os.close(descriptor)


def _check_file(about: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise Untrusted("it is not a file")
    if about.st_uid != os.geteuid():
        raise Untrusted("it belongs to another user")
    if about.st_mode & OTHERS:
        raise Untrusted(f"its mode is {stat.S_IMODE(about.st_mode):o}, so that others can use it: chmod 600")
    if about.st_size > max_bytes:
        raise Untrusted(f"it has more than {max_bytes >> 10} KiB")


def write(path: Path, content: bytes) -> None:
    """Replaces the file at once, with mode 600. Raises OSError or Untrusted."""
    import tempfile

    make(path.parent)
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def make(folder: Path) -> None:
    folder.mkdir(mode=OURS, parents=True, exist_ok=True)
    about = folder.stat()
    if about.st_uid != os.geteuid():
        raise Untrusted(f"{folder} belongs to another user")
    if about.st_mode & OTHERS_WRITE:
        raise Untrusted(f"others can write to {folder}: chmod 700")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One command at a time; the others wait."""
    import fcntl

    make(folder)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
