"""Keeps answers as they are: the text of a payload stays as it was published."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from fastpubsub.cli.exits import FAILED, fail, note

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client
    from fastpubsub.client.requests import Request

T = TypeVar("T")

PAGE = 100


class Number(str):
    """A number as it is written."""

    __slots__ = ()


@dataclass(frozen=True)
class Record:
    text: bytes

    @cached_property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.text, parse_float=Number, parse_int=Number)
        return fields

    @cached_property
    def line(self) -> bytes:
        """Joins lines: in JSON line ends stand only between tokens, where a space does the same."""
        return self.text.replace(b"\r", b" ").replace(b"\n", b" ").strip()


def single(request: "Request[Any]") -> "Request[Record]":
    """The same request, its answer as it is."""
    instead = {status: single(other) for status, other in request.instead.items()}
    return replace(request, read=_read_one, instead=instead)


def checked(request: "Request[T]") -> "Request[tuple[Record, T]]":
    """The answer as it is, and as the client understands it."""
    return replace(request, read=lambda answer: (Record(answer), request.read(answer)))  # type: ignore[arg-type, return-value]


def several(request: "Request[Any]", member: str = "data") -> "Request[list[Record]]":
    """The objects in the list that is a member of the answer."""
    return replace(request, read=partial(_read_several, member), instead={})


def items(answer: Record, member: str = "data") -> list[Record]:
    """The objects in the list that is a member of an answer."""
    return _read_several(member, answer.text)


def pages(
    client: "Client",
    build: "Callable[[int, int], Request[Any]]",
    limit: int | None,
    offset: int,
    member: str = "data",
    *,
    whole: bool = False,
) -> Iterator[list[Record]]:
    """`build` gets the offset and the limit of each. A page may be shorter than asked for, because of its size.

    Topics may be missing: people are told so at the first page, and what needs all of them (`whole`) ends there.
    """
    told: list[str] = []
    while limit is None or limit > 0:
        answer = client.send(single(build(offset, PAGE if limit is None else min(limit, PAGE))))
        page = items(answer, member)
        told = told or _tell_of_missing(answer, whole=whole)
        if not page:
            return
        yield page
        offset += len(page)
        limit = None if limit is None else limit - len(page)


def _tell_of_missing(answer: Record, *, whole: bool) -> list[str]:
    if b'"missing_topics"' not in answer.text:
        return []
    missing: list[str] = answer.fields.get("missing_topics") or []
    if missing:
        told = f"a node of PostgreSQL does not answer, so these topics are missing: {', '.join(missing)}"
        if whole:
            fail(f"{told}\nall of them are needed for this: try again when the node answers", FAILED)
        note(f"fastpubsub: {told}")
    return missing


def token_pages(client: "Client", build: "Callable[..., Request[Any]]") -> Iterator[Record]:
    """The objects of all pages, each of which has the token of the next."""
    page: dict[str, Any] = {}
    while True:
        answer = client.send(single(build(**page, limit=PAGE)))
        yield from items(answer)
        token = answer.fields.get("next_page_token")
        if token is None:
            return
        page = {"page_token": token}


def _read_one(answer: bytes) -> Record:
    import msgspec

    return Record(_checked(answer, dict[str, msgspec.Raw]))


def _read_several(member: str, answer: bytes) -> list[Record]:
    import msgspec

    # As they are: a number that no float can hold is one, too.
    _checked(answer, dict[str, msgspec.Raw])
    found = msgspec.json.decode(answer, type=dict[str, msgspec.Raw]).get(member, b"")
    _checked(bytes(found), list[dict[str, msgspec.Raw]])
    return [Record(bytes(one)) for one in msgspec.json.decode(found, type=list[msgspec.Raw])]


def _checked(answer: bytes, shape: Any) -> bytes:
    import msgspec

    from fastpubsub.client.errors import UnexpectedAnswer

    try:
        msgspec.json.decode(answer, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnexpectedAnswer("this answer is not from a fastpubsub server") from None
    return answer
