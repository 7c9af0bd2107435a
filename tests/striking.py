"""A TCP proxy that strikes at one turn of a conversation, whatever is spoken: so a test can walk over all of them."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from tests import harness

CHUNK = 1 << 16


class Striker:
    """`with Striker(connect, 4, strike) as striker`: connect to `striker.port` instead.

    The first that the client says is turn 1, the answer to it turn 2, and so on. Before what is said at the given turn
    goes on, it calls `strike` and ends the connections that there are. Later ones are left alone.
    """

    def __init__(self, connect: Callable[[], socket.socket], turn: int, strike: Callable[[], object]) -> None:
        self.port = harness.free_port()
        self.has_struck = False
        self._connect = connect
        self._turn = turn
        self._strike = strike
        self._turns = 0
        self._is_clients = False
        """The last word."""
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._end_connections()
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._sockets):
            one.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):  # when the listener ends
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = self._connect()
                self._sockets.append(server)
                self._start(self._pump, client, server, True)
                self._start(self._pump, server, client, False)

    def _pump(self, source: socket.socket, sink: socket.socket, is_client: bool) -> None:
        with suppress(OSError):
            while (data := source.recv(CHUNK)) and self._may_pass(is_client):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _may_pass(self, is_client: bool) -> bool:
        with self._lock:
            if self.has_struck or is_client == self._is_clients:
                return True
            self._is_clients = is_client
            self._turns += 1
            self.has_struck = self._turns == self._turn
            if self.has_struck:
                self._strike()
                self._end_connections()
            return not self.has_struck

    def _end_connections(self) -> None:
        for one in [*self._sockets]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
