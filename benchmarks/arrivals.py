"""Consumers that wait: when each message arrived at one of them. In a process of their own, as consumers are."""

import multiprocessing
import re
import selectors
import socket
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Self

from benchmarks import raw
from benchmarks.errors import BenchmarkError
from benchmarks.payloads import FIRST
from benchmarks.service import Subscription
from benchmarks.stack import HOST

CONSUMERS = 4
BATCH = 100
WAIT_SECONDS = 2
_NUMBER = re.compile(rb'"n":(\d{9})')
_ACK_ID = re.compile(rb'"ack_id":("[^"]+")')
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"
SPAWN = multiprocessing.get_context("spawn")


class Arrivals:
    """Pulls that wait, one after the other on each connection; what came is acked before the next."""

    def __init__(self, subscription: Subscription) -> None:
        port = subscription.topic.service.server.port
        self._ours, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_consume, args=(theirs, port, subscription.id))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def take(self) -> dict[int, float]:
        """By number, when it came by `time.perf_counter`, which all processes of a Linux machine share."""
        self._ours.send(None)
        if not self._ours.poll(10):
            raise BenchmarkError("the consumers that wait do not answer any more")
        arrived: dict[int, float] = self._ours.recv()
        return arrived

    def take_all(self, numbers: Collection[int], seconds: float) -> dict[int, float]:
        """Those of `numbers` that arrive within `seconds`."""
        arrived = self.take()
        deadline = time.monotonic() + seconds
        while not arrived.keys() >= set(numbers) and time.monotonic() < deadline:
            time.sleep(0.05)
            arrived |= self.take()
        return arrived


@dataclass
class _Consumer:
    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)
    is_acking: bool = False

    def answer(self) -> bytes | None:
        """The body of the answer, when it is whole."""
        head = self.received.find(_END_OF_HEAD)
        if head < 0:
            return None
        length = _LENGTH.search(self.received, 0, head + 2)
        end = head + len(_END_OF_HEAD) + (int(length[1]) if length else 0)
        if len(self.received) < end:
            return None
        if not self.received.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 204 ")):
            raise BenchmarkError(bytes(self.received[:300]).decode(errors="replace"))
        body = bytes(self.received[head + len(_END_OF_HEAD) : end])
        del self.received[:end]
        return body


def _consume(pipe: Connection, port: int, subscription_id: str) -> None:
    path = f"/subscriptions/{subscription_id}"
    pull = raw.request("GET", f"{path}/messages?consumer_id=waiting&batch_size={BATCH}&wait_seconds={WAIT_SECONDS}")
    arrived: dict[int, float] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        for _ in range(CONSUMERS):
            connection = socket.create_connection((HOST, port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(pull)
            selector.register(connection, selectors.EVENT_READ, _Consumer(connection))
        while True:
            for key, _ in selector.select():
                now = time.perf_counter()
                if key.data is None:
                    pipe.recv()
                    pipe.send(arrived)
                    arrived = {}
                    continue
                consumer: _Consumer = key.data
                consumer.received += consumer.connection.recv(1 << 20)
                body = consumer.answer()
                if body is None:
                    continue
                ack_ids = [] if consumer.is_acking else _ACK_ID.findall(body)
                arrived |= {int(number) - FIRST: now for number in _NUMBER.findall(body)}
                consumer.is_acking = bool(ack_ids)
                acks = raw.request("POST", f"{path}/acks", b"[%b]" % b",".join(ack_ids))
                consumer.connection.sendall(acks if ack_ids else pull)
