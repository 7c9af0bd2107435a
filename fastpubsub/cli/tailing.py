"""Following a topic by Server-Sent Events, over connections that end."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from fastpubsub.cli.connection import Trouble
from fastpubsub.cli.exits import note
from fastpubsub.cli.output import Output, is_read
from fastpubsub.cli.records import Record

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client

QUIET_SECONDS = 60.0
"""Servers say something every 15 seconds, unless they are set otherwise; opening it again loses nothing."""


class Event(NamedTuple):
    """`kind` is empty for one without data: it only has an id, or is a heartbeat."""

    kind: str
    id: str | None
    data: bytes


class Tailing:
    def __init__(self, client: "Client", topic_id: str, output: Output, after: str | None) -> None:
        self._client = client
        self._topic_id = topic_id
        self._output = output
        self._after = after
        self._trouble = Trouble()

    def run(self) -> None:
        """Until the server refuses it, or nobody reads any more."""
        from fastpubsub.client.pulling import PASSING

        while is_read():
            try:
                self._listen()
            except PASSING as error:
                self._trouble.wait(error)

    def _listen(self) -> None:
        from fastpubsub.client import requests
        from fastpubsub.client.errors import ConnectionFailed

        with self._client.stream(requests.follow(self._topic_id, after=self._after), QUIET_SECONDS) as chunks:
            self._trouble.is_over()
            for event in events(chunks):
                if event.kind == "end":
                    raise ConnectionFailed(event.data.decode(errors="replace"))
                self._take(event)
                if not is_read():
                    return
        raise ConnectionFailed("the server ended the stream")

    def _take(self, event: Event) -> None:
        if event.kind == "message":
            self._output.rows([Record(event.data)])
        elif event.kind == "gap":
            note("fastpubsub: messages were deleted before they could be read; what follows comes after a gap")
        self._after = event.id or self._after


def events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """As the HTML standard has it. Only ends of lines of ASCII end a line: U+2028 may be part of a payload."""
    kind = "message"
    id_: str | None = None
    data: list[bytes] = []
    for line in _lines(chunks):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            yield Event(kind if data else "", id_, b"\n".join(data))
            kind, data = "message", []
        elif name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value.decode(errors="replace")
        elif name == b"id":
            id_ = value.decode(errors="replace")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        rest.append(first)
        if others:
            yield b"".join(rest).rstrip(b"\r")
            yield from (line.rstrip(b"\r") for line in others[:-1])
            rest = [others[-1]]
