"""Listeners of a topic with a filter each, which get their own messages, beside as many that get everything."""

import itertools
import json
import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Self
from urllib.parse import quote

from benchmarks import raw
from benchmarks.arrivals import SPAWN
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.features import measure
from benchmarks.payloads import payload
from benchmarks.results import Measure
from benchmarks.service import Topic
from benchmarks.stack import HOST

GOALS = (0.3, 1.0)
_MESSAGE = b"event: message\n"
_PATIENCE_SECONDS = 60.0
_OK, _STORED = b"HTTP/1.1 200 ", b"HTTP/1.1 204 "


def listeners(bench: Bench) -> list[Measure]:
    count = bench.plan.listeners
    with bench.service() as service, ExitStack() as stack:
        own, everything, alone = (
            stack.enter_context(Listeners(service.create_topic(), number, with_filters=with_filters))
            for number, with_filters in ((count, True), (count, False), (1, True))
        )
        found = bench.rounds(*(one.received_per_second for one in (own, everything, alone)))
    filtered, unfiltered, single = found
    bench.results.notes.append(
        f"messages that one of {count:,} listeners with a filter each gets, one after the other: "
        f"{filtered.median:,.0f} per s, and {single.median:,.0f} where it is the only one"
    )
    name = f"published and received, {count:,} listeners with a filter each ÷ without"
    return [measure(name, GOALS, filtered, unfiltered)]


class Listeners:
    """Streams, in a process of their own, each of a user, to whom one of as many messages belongs."""

    def __init__(self, topic: Topic, count: int, *, with_filters: bool) -> None:
        self._port = topic.service.server.port
        self._requests = itertools.cycle([_publish(topic, user) for user in range(count)])
        self._receivers = 1 if with_filters else count
        self._ours, theirs = SPAWN.Pipe()
        filters = [json.dumps({"$attributes": {"user": [str(user)]}}) for user in range(count)]
        queries = [f"?filter={quote(one)}" if with_filters else "" for one in filters]
        streams = [raw.request("GET", f"/topics/{topic.id}/stream{query}") for query in queries]
        self._process = SPAWN.Process(target=_listen, args=(theirs, self._port, streams))

    def __enter__(self) -> Self:
        self._process.start()
        try:
            self._wait("their streams were not opened")
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def received_per_second(self, seconds: float) -> float:
        """Messages; the next one is published when the last one has come to all who get it."""
        received = 0
        with socket.create_connection((HOST, self._port)) as publisher:
            publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            started = time.monotonic()
            while time.monotonic() < started + seconds:
                self._ours.send(self._receivers)
                publisher.sendall(next(self._requests))
                if not (answer := publisher.recv(1 << 16)).startswith(_STORED):
                    raise BenchmarkError(f"a publish was answered: {answer[:300].decode(errors='replace')}")
                self._wait("a message did not come to all who get it")
                received += 1
        return received / (time.monotonic() - started)

    def _wait(self, otherwise: str) -> None:
        error = self._ours.recv() if self._ours.poll(_PATIENCE_SECONDS) else otherwise
        if error:
            raise BenchmarkError(f"listeners: {error}")


def _publish(topic: Topic, user: int) -> bytes:
    body = f'{{"messages":[{{"payload":{payload(user)},"attributes":{{"user":"{user}"}}}}]}}'
    return raw.publish(topic.id, body.encode())


def _listen(pipe: Connection, port: int, streams: Sequence[bytes]) -> None:
    """Tells when all are open, and then each time when as many messages have come as it was told; a reason ends it."""
    missing, is_asked = 0, True
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            connection = socket.create_connection((HOST, port))
            connection.sendall(stream)
            head = connection.recv(1 << 16)
            if not head.startswith(_OK):
                pipe.send(head[:300].decode(errors="replace"))
                return
            selector.register(connection, selectors.EVENT_READ, connection)
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if is_asked and not missing:
                pipe.send("")
                is_asked = False
            for key, _ in selector.select():
                if key.data is None:
                    missing += pipe.recv()
                    is_asked = True
                elif data := key.data.recv(1 << 16):
                    missing -= data.count(_MESSAGE)
                else:
                    pipe.send("a stream has ended")
                    return
