"""Sifting: which messages of a topic pass the filters of listeners, judged here and not by PostgreSQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from fastpubsub import filters


class Judged(Protocol):
    @property
    def payload(self) -> bytes: ...

    @property
    def attributes(self) -> bytes | None: ...


class Sieve(NamedTuple):
    """A filter. Listeners whose filters have the same text share a judgment."""

    text: str
    wanted: Mapping[str, Any]

    @classmethod
    def of(cls, text: str) -> "Sieve":
        """Of a filter that was checked."""
        return cls(text, filters.read(text) or {})


@dataclass
class _Document:
    message: Judged

    @cached_property
    def payload(self) -> Any:
        return filters.read(self.message.payload)

    @cached_property
    def attributes(self) -> filters.Attributes:
        return filters.Attributes(filters.read(self.message.attributes or b"null"))

    def passes(self, wanted: Mapping[str, Any]) -> bool:
        """A payload that nests deeper than Python reads passes no filter."""
        payload = None if wanted.keys() == {filters.ATTRIBUTES} else self.payload
        return filters.matches(wanted, payload, self.attributes)


@dataclass
class Documents:
    """Messages as filters see them: each is parsed once, and its payload only if a filter asks for it."""

    messages: Sequence[Judged]

    def passing(self, sieve: Sieve) -> list[int]:
        """The places of the messages that pass."""
        return [place for place, document in enumerate(self._documents) if _passes(document, sieve.wanted)]

    @cached_property
    def _documents(self) -> list[_Document]:
        return [_Document(message) for message in self.messages]


def _passes(document: _Document, wanted: Mapping[str, Any]) -> bool:
    try:
        return document.passes(wanted)
    except (RecursionError, ValueError):
        return False
