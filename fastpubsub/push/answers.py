"""Reads the answer of an endpoint: its status, and little of the rest."""

from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from fastpubsub.push.failures import PushFailed

MAX_HEAD_BYTES = 1 << 14
MAX_REST_BYTES = 1 << 16
"""After the head, trailers and all, that are read so that the connection can be used again; after more it is cut."""

KEPT_BYTES = 1024
_KEPT_HEADERS = frozenset({b"retry-after", b"webhook-allowed-origin"})


class PushAnswer(NamedTuple):
    status: int
    headers: dict[str, str]
    start: bytes
    """Of the body."""

    @property
    def text(self) -> str:
        """As PostgreSQL can keep it."""
        return self.start.decode("utf-8", "replace").replace("\0", "\ufffd")


class AnswerReader:
    """The status counts, whatever follows it: the service has done its work."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._status = 0
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._rest_bytes = 0
        self._start = b""
        self.is_whole = False
        self.is_reusable = False

    @property
    def has_begun(self) -> bool:
        return self._head_bytes > 0

    def feed(self, data: bytes) -> bool:
        """Whether nothing more is to be read."""
        if self._status:
            self._rest_bytes += len(data)
        else:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.is_reusable = False
            if not self._status:
                raise PushFailed("the answer is not HTTP/1.1") from None
            return True
        if not self._status and self._head_bytes > MAX_HEAD_BYTES:
            raise PushFailed(f"the head of the answer has more than {MAX_HEAD_BYTES} bytes")
        if self._rest_bytes > MAX_REST_BYTES:
            self.is_reusable = False
            return True
        return self.is_whole

    def answer(self) -> PushAnswer | None:
        """None as long as there is no status."""
        return PushAnswer(self._status, self._headers, self._start) if self._status else None

    def on_message_begin(self) -> None:
        if self.is_whole:  # more than was asked for
            self.is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status and name.lower() in _KEPT_HEADERS:
            self._headers[name.lower().decode()] = value.decode("latin-1")[:KEPT_BYTES]

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = {}  # the answer is still to come
        elif not self._status:
            self._status = status
            self.is_reusable = self._parser.should_keep_alive()

    def on_body(self, chunk: bytes) -> None:
        if not self.is_whole:
            self._start += chunk[: KEPT_BYTES - len(self._start)]

    def on_message_complete(self) -> None:
        self.is_whole = self._status > 0
