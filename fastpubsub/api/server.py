"""The server: gunicorn with uvicorn workers, or one uvicorn in this process for `fastpubsub dev`.

The application is imported inside functions: prometheus_client decides once, when it is imported, whether it shares its
values between processes.
"""

import asyncio
import fcntl
import functools
import gc
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from fastpubsub import logs
from fastpubsub.api.http_protocol import BoundedHttpProtocol
from fastpubsub.config import Settings

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where workers beat without touching a disk
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Of prometheus_client; a folder given in it is emptied and kept."""

METRICS_PREFIX = "fastpubsub-metrics-"
MAX_FRAME_BYTES = 1 << 20
PONG_SECONDS = 20.0
MARGIN_SECONDS = 5
"""Beyond the times that the settings give to everything that ends, before gunicorn kills."""


class ServerError(RuntimeError):
    """One sentence: why the server cannot serve."""


class GracefulServer(uvicorn.Server):
    """Tells the application first that it stops: readiness turns 503, and what waits for messages answers."""

    def __init__(self, config: uvicorn.Config, delay_seconds: float, started: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._delay_seconds = delay_seconds
        self._tell_started = started
        self._is_stopping = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What exists by now stays; to walk over it in each full collection stops everything for tens of milliseconds.
        gc.collect()
        gc.freeze()
        if self._tell_started is not None and not self.should_exit:
            self._tell_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Does not remember the signal: uvicorn would raise it again at the end, and die of it instead of returning."""
        self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._is_stopping:
            self.should_exit = self.force_exit = True
            return
        self._is_stopping = True
        self.config.app.state.stopping.set()  # type: ignore[union-attr]
        self._loop.call_later(self._delay_seconds, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    return {
        "loop": "uvloop",
        "ws": "websockets-sansio",
        "ws_max_size": MAX_FRAME_BYTES,
        "ws_ping_interval": settings.stream_heartbeat_seconds,
        "ws_ping_timeout": PONG_SECONDS,
        # An inflated frame would have no bound, and each connection would keep a window of its own.
        "ws_per_message_deflate": False,
        "http": functools.partial(
            BoundedHttpProtocol,
            max_bytes=settings.api_max_header_bytes,
            max_headers=settings.api_max_headers,
            seconds=settings.api_header_timeout_seconds,
            body_seconds=settings.api_body_timeout_seconds,
        ),
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": bool(settings.api_forwarded_allow_ips),
        "forwarded_allow_ips": settings.api_forwarded_allow_ips,
        "timeout_keep_alive": settings.api_keep_alive_seconds,
        "timeout_graceful_shutdown": settings.api_shutdown_grace_seconds,
    }


def serve_here(settings: Settings, started: Callable[[], None]) -> None:
    """One process, for `fastpubsub dev`; returns after a signal to stop, calls `started` once requests are answered."""
    from fastpubsub.api.app import create_app

    with bound_socket(settings.api_host, settings.api_port) as listener:
        config = uvicorn.Config(create_app(settings), **uvicorn_options(settings))
        server = GracefulServer(config, settings.api_shutdown_delay_seconds, started)
        server.run(sockets=[listener])
        if not server.started:
            raise ServerError("the server could not start; the lines above say why")


def bound_socket(host: str, port: int) -> socket.socket:
    """Bound, and not listening yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServerError(f"cannot listen on {host} port {port}: {error.strerror}; choose another port") from None
    return listener


class Worker(UvicornWorker):  # type: ignore[misc]
    """A gunicorn worker that stops gracefully and does not outlive its master."""

    app: "Application"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = self.app.settings
        # The parent has just taken uvicorn's loggers away from ours.
        logs.configure(settings)
        self.config = uvicorn.Config(
            "",
            **uvicorn_options(settings),
            backlog=self.cfg.backlog,
            timeout_notify=1,
            callback_notify=self.callback_notify,
        )

    async def callback_notify(self) -> None:
        await super().callback_notify()
        if os.getppid() != self.ppid:
            self._server.handle_exit(signal.SIGTERM, None)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self._server = GracefulServer(self.config, self.app.settings.api_shutdown_delay_seconds)
        loop = asyncio.get_running_loop()
        # What gunicorn sends for a quick shutdown; requests in flight are finished all the same.
        loop.add_signal_handler(signal.SIGQUIT, self._server.handle_exit, signal.SIGQUIT, None)
        await self._server.serve(sockets=self.sockets)
        if not self._server.started:
            raise SystemExit(Arbiter.WORKER_BOOT_ERROR)


class Application(BaseApplication):  # type: ignore[misc]
    """What gunicorn runs; each worker makes its own FastAPI application after the fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in gunicorn_options(self.settings).items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from fastpubsub.api.app import create_app

        return create_app(self.settings)


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    return {
        "bind": f"{host}:{settings.api_port}",
        "workers": settings.api_num_workers,
        "worker_class": Worker,
        "graceful_timeout": int(
            settings.api_shutdown_delay_seconds
            + settings.api_shutdown_grace_seconds
            + settings.database_call_timeout_seconds
            + MARGIN_SECONDS
        ),
        "backlog": 2048,
        "control_socket_disable": True,
        "loglevel": settings.log_level,
        "logconfig_dict": logs.logging_config(settings),
        "child_exit": _forget_live_gauges,
        "proc_name": "fastpubsub",
        "worker_tmp_dir": _shared_memory(),
    }


def run(settings: Settings) -> None:
    """Serves until a signal to stop; does not return but exits."""
    bound_socket(settings.api_host, settings.api_port).close()
    logs.warn_about(settings)
    with metrics_folder(settings.api_num_workers):
        # Once, in the parent, so that workers start at once and share its memory.
        import fastpubsub.api.app  # noqa: F401
        from fastpubsub.services.readiness import log_problem

        asyncio.run(log_problem(settings))
        Application(settings).run()


@contextmanager
def metrics_folder(workers: int) -> Iterator[None]:
    """Where several workers put their counts, so that a scrape of one tells the sum of all."""
    given = os.environ.get(METRICS_FOLDER)
    if workers == 1 and given is None:
        yield
        return
    if given is None:
        with _folder_of_this_run(Path(_shared_memory() or tempfile.gettempdir())) as folder:
            os.environ[METRICS_FOLDER] = str(folder)
            yield
        return
    Path(given).mkdir(parents=True, exist_ok=True)
    for left_over in Path(given).glob("*.db"):
        left_over.unlink()
    yield


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


def _forget_live_gauges(_arbiter: object, worker: UvicornWorker) -> None:
    if METRICS_FOLDER in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _shared_memory() -> str | None:
    return str(SHARED_MEMORY) if os.access(SHARED_MEMORY, os.W_OK) else None
