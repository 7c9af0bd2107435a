"""The processes of `fastpubsub server`: gunicorn's master, and workers with a uvicorn each.

The workers take their orders from the master alone. What a terminal, systemd or `timeout` sends to the whole group
reaches them as well, and whoever counted that would count each signal twice.
"""

import asyncio
import os
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.sock import close_sockets
from uvicorn_worker import UvicornWorker

from fastpubsub import logs
from fastpubsub.api import server
from fastpubsub.api.metrics_folder import forget_live_gauges, metrics_folder, shared_memory
from fastpubsub.config import Settings
from fastpubsub.stopping import CUT, SIGNALS, Orders

MARGIN_SECONDS = 5
"""Beyond the times that the settings give to everything that ends, before workers are killed."""

STOP = signal.SIGUSR2
"""From the master to its workers; nobody sends it to a group."""

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""SIGHUP starts new workers in place of the old ones."""

POLL_SECONDS = 0.05


class GunicornWorker(UvicornWorker):  # type: ignore[misc]
    """A gunicorn worker that stops when its master says so, gracefully, and does not outlive it."""

    app: "GunicornApplication"

    _server: server.GracefulServer

    _is_told = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = self.app.settings
        # The parent has just taken uvicorn's loggers away from ours.
        logs.configure(settings)
        self.config = uvicorn.Config(
            "",
            **server.uvicorn_options(settings),
            backlog=self.cfg.backlog,
            timeout_notify=1,
            callback_notify=self.callback_notify,
        )

    def init_signals(self) -> None:
        super().init_signals()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(STOP, self._hear)

    def _hear(self, _number: int, _frame: object) -> None:
        """Raises nothing: the signal may come in a callback out of which Python passes on no exception."""
        signal.signal(STOP, signal.SIG_IGN)
        self._is_told = True

    async def callback_notify(self) -> None:
        await super().callback_notify()
        if os.getppid() != self.ppid:
            self._server.stop()

    async def _serve(self) -> None:
        if self._is_told:
            return  # before there is anything to finish
        self.config.app = self.wsgi
        self._server = server.GracefulServer(self.config, self.app.settings.api_shutdown_delay_seconds, signals=[STOP])
        # gunicorn's own objects would close them a second time, when the number may be somebody else's.
        await self._server.serve(sockets=[listener.sock for listener in self.sockets])
        signal.signal(STOP, signal.SIG_IGN)
        if not self._server.started:
            raise SystemExit(Arbiter.WORKER_BOOT_ERROR)


class Master(Arbiter):  # type: ignore[misc]
    """gunicorn's, for which each signal to stop means the same: a second one changes nothing, a third does not wait."""

    LISTENERS: list[Any]

    def __init__(self, app: "GunicornApplication") -> None:
        super().__init__(app)
        self._orders = Orders()

    def signal(self, sig: int, frame: FrameType | None) -> None:
        if sig in STOPPING:
            self._orders.came()
        super().signal(sig, frame)

    def handle_int(self) -> None:
        self.handle_term()

    def handle_quit(self) -> None:
        self.handle_term()

    def kill_worker(self, pid: int, sig: int) -> None:
        super().kill_worker(pid, STOP if sig in STOPPING else sig)

    def stop(self, graceful: bool = True) -> None:
        close_sockets(self.LISTENERS, unlink=False)
        self.LISTENERS = []
        until = time.monotonic() + self.cfg.graceful_timeout
        while self.WORKERS and not self._orders.hurried and time.monotonic() < until:
            # Again and again: one that is just being forked does not hear it yet.
            self.kill_workers(STOP)
            with suppress(HaltServer):
                self.reap_workers()
            time.sleep(POLL_SECONDS)
        if self.WORKERS:
            self._cut()

    def _cut(self) -> None:
        self.log.warning("ending at once: requests in flight get no answer")
        self.kill_workers(signal.SIGKILL)
        for pid, worker in list(self.WORKERS.items()):
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
            self.cfg.child_exit(self, worker)
        self.WORKERS.clear()
        raise SystemExit(CUT)


class GunicornApplication(BaseApplication):  # type: ignore[misc]
    """The application of gunicorn; each worker creates its own FastAPI application after the fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in gunicorn_options(self.settings).items():
            self.cfg.set(name, value)

    def run(self) -> None:
        Master(self).run()

    def load(self) -> Any:
        from fastpubsub.api.app import create_app

        return create_app(self.settings)


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    return {
        "bind": f"{host}:{settings.api_port}",
        "workers": settings.api_num_workers,
        "worker_class": GunicornWorker,
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
        "child_exit": forget_live_gauges,
        "proc_name": "fastpubsub",
        "worker_tmp_dir": shared_memory(),
    }


def run(settings: Settings) -> None:
    """Serves until a signal to stop; does not return but exits."""
    server.bound_socket(settings.api_host, settings.api_port).close()
    logs.warn_about(settings)
    with metrics_folder(settings.api_num_workers):
        # Once, in the parent, so that workers start at once and share its memory.
        import fastpubsub.api.app  # noqa: F401
        from fastpubsub.services.readiness import log_problem

        asyncio.run(log_problem(settings))
        GunicornApplication(settings).run()
