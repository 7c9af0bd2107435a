"""What the server answers, as it is: the text of a payload stays what somebody published."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client
    from fastpubsub.client.requests import Request

PAGE = 100


@dataclass(frozen=True)
class Record:
    text: bytes

    @cached_property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.text)
        return fields

    @cached_property
    def line(self) -> bytes:
        """In JSON ends of lines stand only between tokens, where a space does the same."""
        return self.text.replace(b"\r", b" ").replace(b"\n", b" ").strip()


def single(request: "Request[Any]") -> "Request[Record]":
    """The same request, its answer as it is."""
    instead = {status: single(other) for status, other in request.instead.items()}
    return replace(request, read=_read_one, instead=instead)


def several(request: "Request[Any]") -> "Request[list[Record]]":
    return replace(request, read=_read_several, instead={})


def pages(
    client: "Client", build: "Callable[[int, int], Request[Any]]", limit: int | None, offset: int
) -> Iterator[list[Record]]:
    """`build` gets the offset and the limit of each. A page may be shorter than asked for, because of its size."""
    while limit is None or limit > 0:
        page = client.send(several(build(offset, PAGE if limit is None else min(limit, PAGE))))
        if not page:
            return
        yield page
        offset += len(page)
        limit = None if limit is None else limit - len(page)


def _read_one(answer: bytes) -> Record:
    return Record(_checked(answer, dict[str, Any]))


def _read_several(answer: bytes) -> list[Record]:
    import msgspec

    _checked(answer, dict[str, list[dict[str, Any]]])
    return [Record(bytes(one)) for one in msgspec.json.decode(answer, type=dict[str, list[msgspec.Raw]])["data"]]


def _checked(answer: bytes, shape: Any) -> bytes:
    import msgspec

    from fastpubsub.client.errors import UnexpectedAnswer

    try:
        msgspec.json.decode(answer, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnexpectedAnswer("the answer is not one of a fastpubsub server") from None
    return answer
