"""The bodies of answers: inflated here, piece by piece, so that a few bytes cannot become a memory full of them."""

import zlib
from collections.abc import Iterable, Iterator

from fastpubsub.client.errors import UnexpectedAnswer

ENCODINGS = "gzip"
PIECE_BYTES = 1 << 16
_GZIP = 16 + zlib.MAX_WBITS


class Body:
    def __init__(self, encoding: str) -> None:
        if encoding.lower() not in ("", "identity", "gzip"):
            raise UnexpectedAnswer(f"the answer is encoded as {encoding[:50]!r}, which the client did not ask for")
        self._inflate = zlib.decompressobj(_GZIP) if encoding.lower() == "gzip" else None

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        """Inflates at most PIECE_BYTES of compressed data at a time."""
        return (chunk,) if self._inflate is None else _inflated(self._inflate, chunk)


def _inflated(inflate: "zlib._Decompress", chunk: bytes) -> Iterator[bytes]:
    while chunk and not inflate.eof:
        try:
            yield inflate.decompress(chunk, PIECE_BYTES)
        except zlib.error as error:
            raise UnexpectedAnswer(f"the answer is not valid gzip, although it says so: {error}") from None
        chunk = inflate.unconsumed_tail


class WholeBody:
    """Refuses what is larger than `max_bytes`."""

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._body = Body(encoding)
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        for piece in self._body.feed(chunk):
            self._size += len(piece)
            if self._size > self._max_bytes:
                raise UnexpectedAnswer(
                    f"the answer has more than {self._max_bytes} bytes: ask for less at once, "
                    "or allow more with Policy(max_answer_bytes=…)"
                )
            self._pieces.append(piece)

    def content(self) -> bytes:
        return b"".join(self._pieces)
