"""Sifting: which messages of a topic pass the filters of listeners, judged here and not by PostgreSQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import msgspec

from fastpubsub import filters

_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Judged(Protocol):
    @property
    def payload(self) -> bytes: ...

    @property
    def attributes(self) -> bytes | None: ...

    @property
    def ordering_key(self) -> str | None: ...


class Sieve(NamedTuple):
    """Filters that a message has to pass, all of them. Listeners whose filters have the same text share a judgment."""

    text: str
    filters: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, *texts: str) -> "Sieve":
        """Of filters that were checked."""
        return cls("\n".join(texts), [filters.read(text) or {} for text in texts])


class _Members(dict[str, Any]):
    """The members of an object, each read when a filter asks for it: a payload may have megabytes that none names."""

    def __init__(self, text: bytes) -> None:
        super().__init__(_raw_members.decode(text))

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if isinstance(value, msgspec.Raw):
            value = self[name] = _read(bytes(value))
        return value


def _read(text: bytes) -> Any:
    """An array passes no operator but `exists`, whatever is in it."""
    first = text[:1]
    return _Members(text) if first == b"{" else [] if first == b"[" else filters.read(text)


@dataclass
class _Document:
    message: Judged

    @cached_property
    def payload(self) -> Any:
        return _Members(self.message.payload)

    @cached_property
    def beside(self) -> filters.Beside:
        return filters.Beside(filters.read(self.message.attributes or b"null"), self.message.ordering_key)

    def passes(self, wanted: Mapping[str, Any]) -> bool:
        """A payload that nests deeper than Python reads passes no filter."""
        payload = self.payload if filters.reads_payload(wanted) else None
        return filters.matches(wanted, payload, self.beside)


@dataclass
class Documents:
    """Messages as filters see them: each is parsed once, and its payload only if a filter asks for it."""

    messages: Sequence[Judged]

    def passing(self, sieve: Sieve) -> list[int]:
        """The places of the messages that pass."""
        return [place for place, document in enumerate(self._documents) if _passes(document, sieve.filters)]

    @cached_property
    def _documents(self) -> list[_Document]:
        return [_Document(message) for message in self.messages]


def _passes(document: _Document, wanted: Sequence[Mapping[str, Any]]) -> bool:
    try:
        return all(map(document.passes, wanted))
    except (RecursionError, ValueError, msgspec.DecodeError):
        return False
