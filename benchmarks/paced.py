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
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.errors import BenchmarkError
from benchmarks.stack import HOST, Server

CONNECTIONS = 64
_END_SECONDS = 10.0
_ANSWER = b"HTTP/1.1 204 "
_END = b"\r\n\r\n"


@dataclass
class Paced:
    """Sends `request(0)`, `request(1)`, … whose answer is a 204."""

    server: Server
    request: Callable[[int], bytes]
    due: list[float] = field(default_factory=list)
    """By number, by `time.perf_counter`."""
    latencies: dict[int, float] = field(default_factory=dict)
    """How many seconds after it was due a request was answered."""

    def run(self, rate: float, seconds: float) -> None:
        free: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        sent: dict[int, int] = {}
        sockets = [socket.create_connection((HOST, self.server.port)) for _ in range(CONNECTIONS)]
        count = int(rate * seconds)
        try:
            for one in sockets:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                free.put(one)
            started = time.perf_counter() + 0.1
            self.due = [started + number / rate for number in range(count)]
            receiver = threading.Thread(target=self._receive, args=(sockets, free, sent, count))
            receiver.start()
            self._send(free, sent, count)
            receiver.join()
        finally:
            for one in sockets:
                one.close()
        if len(self.latencies) < count:
            raise BenchmarkError(f"{count - len(self.latencies)} of {count} requests were not answered with 204")

    def _send(self, free: "queue.SimpleQueue[socket.socket]", sent: dict[int, int], count: int) -> None:
        for number in range(count):
            if (early := self.due[number] - time.perf_counter()) > 0:
                time.sleep(early)
            # When all connections are busy the request is late, and its latency tells.
            connection = free.get(timeout=_END_SECONDS)
            sent[connection.fileno()] = number
            connection.sendall(self.request(number))

    def _receive(
        self,
        sockets: list[socket.socket],
        free: "queue.SimpleQueue[socket.socket]",
        sent: dict[int, int],
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
                    number = sent[key.fd]
                    self.latencies[number] = now - self.due[number]
                    free.put(key.data)
