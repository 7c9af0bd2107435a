"""Following a topic by Server-Sent Events, over connections that end."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fastpubsub.cli.connection import Trouble
from fastpubsub.cli.exits import note
from fastpubsub.cli.output import Output, is_read
from fastpubsub.cli.records import Record

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client
    from fastpubsub.client.server_sent_events import Event

QUIET_SECONDS = 60.0
"""Servers say something every 15 seconds, unless they are set otherwise; opening it again loses nothing."""


class Tailing:
    def __init__(self, client: "Client", topic_id: str, output: Output, after: str | None, wanted: Any) -> None:
        self._client = client
        self._topic_id = topic_id
        self._output = output
        self._after = after
        self._wanted = wanted
        self._trouble = Trouble()

    def run(self) -> None:
        """Runs until the server refuses it, or its reader ends."""
        from fastpubsub.client.pulling import PASSING

        while is_read():
            try:
                self._listen()
            except PASSING as error:
                self._trouble.wait(error)

    def _listen(self) -> None:
        from fastpubsub.client import requests
        from fastpubsub.client.connections import ONCE, ONCE_MORE
        from fastpubsub.client.errors import ConnectionFailed

        request = requests.follow(self._topic_id, after=self._after, filter=self._wanted)
        with self._client.stream(request, QUIET_SECONDS, ONCE_MORE if self._trouble.is_known else ONCE) as chunks:
            self._trouble.is_over()
            for event in _events(chunks):
                if event.kind == "end":
                    raise ConnectionFailed(event.data.decode(errors="replace"))
                self._take(event)
                if not is_read():
                    return
        raise ConnectionFailed("the server ended the stream")

    def _take(self, event: "Event") -> None:
        if event.kind == "message":
            self._output.rows([Record(event.data)])
        elif event.kind == "gap":
            note("fastpubsub: some messages were deleted before they could be read; the next ones follow a gap")
        self._after = event.place or self._after


def _events(chunks: Iterable[bytes]) -> "Iterator[Event]":
    from fastpubsub.client.server_sent_events import EventParser

    parser = EventParser()
    for chunk in chunks:
        yield from parser.feed(chunk)
