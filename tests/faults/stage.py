"""Sets a rig up and takes it down: nothing that it started outlives it, nor a campaign that was killed."""

import asyncio
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import psutil

from fastpubsub.embedded import EmbeddedError, locked, stop_left_behind
from tests import harness, pgbouncer
from tests.faults.load import Load, addresses_of
from tests.faults.plan import Plan
from tests.faults.rig import SOON, Rig, Setup
from tests.proxy import Proxy

PREFIX = "fastpubsub-rig-"


@asynccontextmanager
async def opened(setup: Setup, seed: int) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        if setup.memory_mb is not None:
            stack.callback(mounted(folder, setup.memory_mb))
        rig = Rig(setup, seed, folder, stack)
        stack.push_async_callback(asyncio.to_thread, rig.postgres.stop)
        await asyncio.to_thread(rig.postgres.start)
        stack.callback(stop_servers, rig)
        if setup.through == "proxy":
            rig.proxy = await stack.enter_async_context(Proxy(rig.database_url))
            rig.proxy.remembers = False
            rig.server_url = rig.proxy.url
        elif setup.through == "pgbouncer":
            rig.server_url = stack.enter_context(pgbouncer.running(rig.database_url, pool_size=6))
        elif setup.standby:
            hosts = ",".join(f"127.0.0.1:{port}" for port in rig.ports)
            rig.server_url = f"postgresql+psycopg://postgres@{hosts}/postgres?target_session_attrs=read-write"
        rig.servers = [rig.start_server() for _ in range(setup.servers)]
        for server in rig.servers:
            await rig.ready(server)
        rig.pushers = [rig.start_pusher() for _ in range(setup.pushers)]
        plain = () if setup.featured or setup.kept else Plan.plain
        plan = Plan(plain, pushed=setup.pushed, featured=setup.featured, kept=setup.kept)
        addresses = addresses_of(server.base_url for server in rig.servers)
        rig.load = Load(plan, addresses, seed, setup.pace, harness.libpq(rig.database_url))
        stack.push_async_callback(rig.load.stop)
        if setup.pushed:
            await stack.enter_async_context(rig.load.receiver.endpoint)
        if setup.load:
            await rig.load.start()
            await rig.load.progress()
        yield rig


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Locked as long as this process lives."""
    remove_left_behind()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    try:
        with locked(folder):
            folder.chmod(0o755)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_behind() -> None:
    """What campaigns that were killed have left running, in folders that nobody holds any more."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        with suppress(EmbeddedError, OSError):
            if time.time() - folder.stat().st_mtime > harness.YOUNG_SECONDS:
                with locked(folder):
                    for process in psutil.process_iter():
                        with suppress(psutil.Error):
                            if process.cwd() == str(folder):
                                process.kill()
                    for name in ("postgres", "standby"):
                        stop_left_behind(folder / name / "cluster")
                    if (folder / "postgres").is_mount():
                        subprocess.check_call(["umount", "--lazy", folder / "postgres"])
                    shutil.rmtree(folder)


def stop_servers(rig: Rig) -> None:
    """However they are: stopped, paused, killed."""
    for server in rig.processes:
        family = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(server.process.pid).children(recursive=True)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        server.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(SOON)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        server.process.kill()
        server.process.wait()


def mounted(folder: Path, megabytes: int) -> Callable[[], object]:
    """A file system of its own under `folder`, and what takes it away."""
    inner = folder / "postgres"
    inner.mkdir()
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", inner])
    return lambda: subprocess.check_call(["umount", "--lazy", inner])
