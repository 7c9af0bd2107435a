"""As much of PostgreSQL's protocol as it takes to know which call is on its way, and whether it was committed."""

import struct
from collections.abc import Iterator

START_CODES = (80877103, 80877104)
"""Requests for TLS and for GSS encryption, which the server answers with one byte."""

CANCEL_CODE = 80877102
FLUSH = b"H" + struct.pack("!i", 4)


class ClientStream:
    """Whole messages, of what a client sends."""

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False
        self.negotiating = 0
        """Answers of one byte that are still to come."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while True:
            offset = 1 if self._started else 0
            if len(self._buffer) < offset + 4:
                return
            length = offset + struct.unpack_from("!i", self._buffer, offset)[0]
            if len(self._buffer) < length:
                return
            message, self._buffer = self._buffer[:length], self._buffer[length:]
            if not self._started:
                self._start(struct.unpack_from("!i", message, 4)[0])
            yield message

    def _start(self, code: int) -> None:
        if code in START_CODES:
            self.negotiating += 1
        elif code != CANCEL_CODE:
            self._started = True


class ServerStream:
    """Whole messages, of what the server answers to this client."""

    def __init__(self, client: ClientStream) -> None:
        self._buffer = b""
        self._client = client

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while self._buffer:
            length = 1
            if self._client.negotiating:
                self._client.negotiating -= 1
            elif len(self._buffer) < 5:
                return
            else:
                length = 1 + struct.unpack_from("!i", self._buffer, 1)[0]
            if len(self._buffer) < length:
                return
            message, self._buffer = self._buffer[:length], self._buffer[length:]
            yield message


class Statements:
    """What a client runs: the query of a Bind or of a simple Query, by the Parse that named it before."""

    def __init__(self) -> None:
        self._by_name: dict[bytes, bytes] = {}

    def query(self, message: bytes) -> bytes | None:
        kind, rest = message[:1], message[5:]
        if kind == b"P":
            name, query = rest.split(b"\0", 2)[:2]
            self._by_name[name] = query
        elif kind == b"B":
            return self._by_name.get(rest.split(b"\0", 2)[1], b"")
        elif kind == b"Q":
            return rest.rstrip(b"\0")
        return None
