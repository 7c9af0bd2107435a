"""An open loop: requests at a constant rate, each latency counted from when its request was due.

A closed loop sends less while the server is slow, and so leaves out the latencies that matter (coordinated omission).
wrk, hey and h2load count from the time of sending, and wrk2, oha and vegeta are in no package of Debian stable; so this
small sender does it. It runs at half load at most, where it costs a tenth of a core.
"""

import queue
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

from benchmarks.errors import BenchmarkError
from benchmarks.stack import HOST, Server

CONNECTIONS = 64
_END_SECONDS = 10.0
_ANSWER = b"HTTP/1.1 204 "
_END = b"\r\n\r\n"


@dataclass
class Paced:
    """Sends one request, whose answer is a 204, again and again."""

    server: Server
    request: bytes
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """When the request was due, in seconds since the start, and how long after that its answer was there."""

    def run(self, rate: float, seconds: float) -> None:
        free: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        due: dict[int, float] = {}
        sockets = [socket.create_connection((HOST, self.server.port)) for _ in range(CONNECTIONS)]
        count = int(rate * seconds)
        try:
            for one in sockets:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                free.put(one)
            started = time.perf_counter() + 0.1
            receiver = threading.Thread(target=self._receive, args=(sockets, free, due, started, count))
            receiver.start()
            self._send(free, due, started, rate, count)
            receiver.join()
        finally:
            for one in sockets:
                one.close()
        if len(self.latencies) < count:
            raise BenchmarkError(f"{count - len(self.latencies)} of {count} requests were not answered with 204")

    def _send(
        self, free: "queue.SimpleQueue[socket.socket]", due: dict[int, float], started: float, rate: float, count: int
    ) -> None:
        for number in range(count):
            intended = started + number / rate
            if (early := intended - time.perf_counter()) > 0:
                time.sleep(early)
            # When all connections are busy the request is late, and its latency tells.
            connection = free.get(timeout=_END_SECONDS)
            due[connection.fileno()] = intended
            connection.sendall(self.request)

    def _receive(
        self,
        sockets: list[socket.socket],
        free: "queue.SimpleQueue[socket.socket]",
        due: dict[int, float],
        started: float,
        count: int,
    ) -> None:
        selector = selectors.DefaultSelector()
        for one in sockets:
            selector.register(one, selectors.EVENT_READ, one)
        parts: dict[int, bytes] = {}
        with selector:
            while len(self.latencies) < count:
                ready = selector.select(_END_SECONDS)
                if not ready:
                    return
                now = time.perf_counter()
                for key, _ in ready:
                    answer = parts.pop(key.fd, b"") + key.data.recv(65536)
                    if not answer.endswith(_END):
                        parts[key.fd] = answer
                        if not answer:
                            return
                        continue
                    if not answer.startswith(_ANSWER):
                        return
                    intended = due[key.fd]
                    self.latencies.append((intended - started, now - intended))
                    free.put(key.data)
