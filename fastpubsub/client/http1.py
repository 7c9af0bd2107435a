"""HTTP/1.1 without a socket: a request becomes bytes, and bytes become an answer."""

import re
from collections.abc import Mapping
from urllib.parse import urlencode

import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from fastpubsub.client.bodies import WholeBody
from fastpubsub.client.exchange import READ_HEADERS, Answer, Send

MAX_HEAD_BYTES = 1 << 16
_LENGTHS = frozenset({"content-length", "transfer-encoding"})
_READ = frozenset(name.encode() for name in {"content-encoding", *_LENGTHS, *READ_HEADERS})
_VALUE = re.compile(r"[\t -~]*")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class RequestWriter:
    """Writes the requests to one server."""

    def __init__(self, url: httpx.URL, headers: Mapping[str, str]) -> None:
        self._prefix = url.raw_path.decode("ascii").rstrip("/")
        same = {"Host": url.netloc.decode("ascii"), **headers}
        self._same = "".join(f"{name}: {value}\r\n" for name, value in same.items())

    def write(self, effect: Send) -> bytes:
        request = effect.request
        query = f"?{urlencode(request.params)}" if request.params else ""
        content = request.content or b""
        head = f"{request.method} {self._prefix}{request.path}{query} HTTP/1.1\r\n{self._same}"
        for name, value in effect.headers.items():
            if not _VALUE.fullmatch(value):
                raise ValueError(f"the value of {name} may have printable ASCII characters only, and it is {value!r}")
            head += f"{name}: {value}\r\n"
        if content or request.method in _WITH_BODY:
            head += f"Content-Length: {len(content)}\r\n"
        return b"%b\r\n%b" % (head.encode("ascii"), content)


class AnswerReader:
    """Reads one answer. What httptools calls raises nothing; `feed` does."""

    def __init__(self, max_bytes: int) -> None:
        self._parser = HttpResponseParser(self)
        self._max_bytes = max_bytes
        self._head_bytes = 0
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._status = 0
        self._body: WholeBody | None = None
        self._is_whole = False
        self.is_reusable = False
        """Whether the connection can carry another request."""

    def feed(self, data: bytes) -> bool:
        """Whether the answer is whole now."""
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._is_whole:
                raise httpx.RemoteProtocolError(f"this is not HTTP/1.1: {error}") from None
            self.is_reusable = False
        if not self._status:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise httpx.RemoteProtocolError(f"the head of the answer has more than {MAX_HEAD_BYTES} bytes")
            return False
        self._inflate()
        if self._is_whole:
            del self._parser  # which refers to this object
        return self._is_whole

    def end(self) -> None:
        """The connection has ended, and with it an answer that gives no length."""
        if self._is_whole or (self._status and not _LENGTHS & self._headers.keys()):
            return
        heard = "before the end of the answer" if self._status or self._head_bytes else "without an answer"
        raise httpx.RemoteProtocolError(f"the server closed the connection {heard}")

    def answer(self) -> Answer:
        return Answer(self._status, self._headers, b"" if self._body is None else self._body.content())

    def _inflate(self) -> None:
        if self._body is None:
            self._body = WholeBody(self._headers.get("content-encoding", ""), self._max_bytes)
        for chunk in self._chunks:
            self._body.feed(chunk)
        self._chunks.clear()

    def on_message_begin(self) -> None:
        if self._is_whole:  # more than was asked for
            self.is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if key in _READ and not self._status:  # neither a trailer nor another answer
            known, text = self._headers.get(key.decode()), value.decode("latin-1")
            self._headers[key.decode()] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = {}  # the answer is still to come
        elif not self._status:
            self._status = status
            self.is_reusable = self._parser.should_keep_alive()

    def on_body(self, chunk: bytes) -> None:
        if not self._is_whole:
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        self._is_whole = self._status > 0
