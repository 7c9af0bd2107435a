"""Reading the streams of a real server over sockets."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import httpx

from tests import harness

SOON = 60.0
"""Seconds; less than the 20 that a server gives at most to what is in flight when it stops."""

Json = dict[str, Any]


class Event(NamedTuple):
    kind: str
    data: Any
    id: str | None


class Events:
    """Server-Sent Events, read in a thread as a browser would."""

    def __init__(self, server: harness.Server, path: str, headers: dict[str, str] | None = None, **query: Any) -> None:
        self.client = httpx.Client(base_url=server.base_url, timeout=httpx.Timeout(SOON, read=None))
        self.request = self.client.build_request("GET", path, params=query, headers=headers)
        self.comments = 0
        self._ids: queue.Queue[str] = queue.Queue()
        self._arrived: queue.Queue[Event | None] = queue.Queue()

    def __enter__(self) -> "Events":
        self.response = self.client.send(self.request, stream=True)
        if self.response.status_code != httpx.codes.OK:
            self.response.read()
            return self
        assert self.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        network = self.response.extensions["network_stream"]
        if (connection := network.get_extra_info("socket")) is not None and connection.fileno() >= 0:
            with suppress(OSError):  # the server was faster
                connection.shutdown(2)
        if hasattr(self, "thread"):
            self.thread.join(SOON)
        self.response.close()
        self.client.close()

    def next(self, seconds: float = SOON) -> Event:
        event = self._arrived.get(timeout=seconds)
        assert event is not None, "the stream has ended"
        return event

    def message(self) -> Json:
        event = self.next()
        assert event.kind == "message", event
        assert event.data["id"] == event.id
        return dict(event.data)

    def messages(self, count: int) -> list[Json]:
        return [self.message() for _ in range(count)]

    def end(self) -> str:
        """The reason; everything else that was on its way is skipped."""
        deadline = time.monotonic() + SOON
        while (event := self.next(deadline - time.monotonic())).kind != "end":
            pass
        assert self._arrived.get(timeout=SOON) is None
        return str(event.data["reason"])

    def next_id(self) -> str:
        """Of an event without data."""
        return self._ids.get(timeout=SOON)

    def is_quiet(self) -> bool:
        return self._arrived.empty()

    def _read(self) -> None:
        try:
            for event in self._parse(self.response.iter_lines()):
                self._arrived.put(event)
        except (httpx.HTTPError, OSError, httpx.StreamError):
            pass
        self._arrived.put(None)

    def _parse(self, lines: Iterator[str]) -> Iterator[Event]:
        fields: dict[str, list[str]] = {}
        for line in lines:
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields.setdefault(name, []).append(value)
            elif "data" in fields:
                kind, ids = fields.get("event", ["message"])[0], fields.get("id")
                yield Event(kind, json.loads("\n".join(fields["data"])), ids[0] if ids else None)
                fields = {}
            else:
                for place in fields.get("id", ()):
                    self._ids.put(place)
                fields = {}


@contextmanager
def tail(server: harness.Server, topic: str = "t", **options: Any) -> Iterator[Events]:
    with Events(server, f"/topics/{topic}/stream", **options) as events:
        yield events


@contextmanager
def stream(server: harness.Server, name: str = "s", consumer: str = "c", **options: Any) -> Iterator[Events]:
    with Events(server, f"/subscriptions/{name}/stream", consumer_id=consumer, **options) as events:
        yield events
