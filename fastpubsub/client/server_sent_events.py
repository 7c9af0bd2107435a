"""Server-Sent Events, parsed as the HTML standard says."""

from collections.abc import Iterator
from typing import NamedTuple

from fastpubsub.client.errors import UnexpectedAnswer

MAX_EVENT_BYTES = 64 << 20
BOM = b"\xef\xbb\xbf"
ENDS = (b"\r", b"\n")


class Event(NamedTuple):
    """`kind` is empty for an event without data: it is a heartbeat, or it only says where the stream is.

    `id` is the last one that the stream has named, `data` is UTF-8.
    """

    kind: str
    id: str
    data: bytes

    @property
    def place(self) -> str | None:
        """Returns the id to continue from, if it can be sent as a header."""
        return self.id if self.id.isascii() and self.id.isprintable() and self.id else None


class EventParser:
    """Takes bytes, because only the line ends of ASCII end a line here: U+2028 may be part of a payload.

    `retry` is passed over: how long to wait is up to the client.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._unfinished: list[bytes] = []
        self._is_first_line = True
        self._ended_by_return = False
        self._kind = self._id = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that end in this chunk. `UnexpectedAnswer` when one of them has more than `max_bytes`."""
        for line in self._lines(chunk):
            if line:
                self._take(*line.split(b":", 1))
            else:
                yield self._dispatch()

    def _take(self, name: bytes, value: bytes = b"") -> None:
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._kind = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")

    def _dispatch(self) -> Event:
        kind = (self._kind or "message") if self._data else ""
        event = Event(kind, self._id, b"\n".join(self._data))
        self._kind, self._data, self._size = "", [], 0
        return event

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        if self._ended_by_return and chunk:
            chunk = chunk.removeprefix(b"\n")  # the other half of the end of the line before
            self._ended_by_return = False
        for piece in chunk.splitlines(keepends=True):
            self._unfinished.append(piece)
            self._size += len(piece)
            if self._size > self._max_bytes:
                raise UnexpectedAnswer(f"an event of the stream has more than {self._max_bytes} bytes")
            if piece.endswith(ENDS):
                line = b"".join(self._unfinished).rstrip(b"\r\n")
                self._unfinished.clear()
                self._ended_by_return = piece.endswith(b"\r")
                yield line.removeprefix(BOM) if self._is_first_line else line
                self._is_first_line = False
