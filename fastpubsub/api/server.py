"""Runs the uvicorn of each worker of `fastpubsub server`, or of the process of `fastpubsub dev`.

The application is imported inside functions: prometheus_client decides once, when it is imported, whether it shares its
values between processes.
"""

import asyncio
import functools
import gc
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from fastpubsub.api import bodies
from fastpubsub.api.http_protocol import BoundedHttpProtocol
from fastpubsub.api.websocket_protocol import BoundedWebSocketProtocol
from fastpubsub.config import Settings
from fastpubsub.stopping import Orders, handled

PONG_SECONDS = 20.0


class CannotServe(RuntimeError):
    """One sentence: why the server cannot serve."""


class GracefulServer(uvicorn.Server):
    """Tells the application first that it stops: readiness turns 503, and what waits for messages answers.

    `signals` tell it to stop; the third of them calls `hurry`, which does not return.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        delay_seconds: float,
        *,
        signals: Iterable[int],
        started: Callable[[], None] | None = None,
        hurry: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(config)
        self._delay_seconds = delay_seconds
        self._signals = signals
        self._tell_started = started
        self._hurry = hurry
        self._orders = Orders()
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

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does not raise the signals again at the end: uvicorn does, and dies of them instead of returning."""
        before = {number: signal.signal(number, self.handle_exit) for number in self._signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._orders.came()
        if self._orders.hurried and self._hurry is not None:
            self._hurry()
        self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self.config.app.state.stopping.set()  # type: ignore[union-attr]
            self._loop.call_later(self._delay_seconds, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    return {
        "loop": "uvloop",
        "ws": BoundedWebSocketProtocol,
        "ws_max_size": bodies.ids(settings),
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


def serve_here(settings: Settings, started: Callable[[], None], hurry: Callable[[], object]) -> None:
    """One process, for `fastpubsub dev`; returns after a signal to stop, calls `started` once requests are answered.

    `hurry` is called by a third signal, and does not return.
    """
    from fastpubsub.api.app import create_app

    with bound_socket(settings.api_host, settings.api_port) as listener:
        config = uvicorn.Config(create_app(settings), **uvicorn_options(settings))
        delay = settings.api_shutdown_delay_seconds
        server = GracefulServer(config, delay, signals=handled(), started=started, hurry=hurry)
        server.run(sockets=[listener])
        if not server.started:
            raise CannotServe("the server could not start; the log lines above say why")


def bound_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound but does not listen yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise CannotServe(f"cannot listen on {host} port {port}: {error.strerror}; choose another port") from None
    return listener
