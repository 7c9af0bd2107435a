"""Which messages a filter or a search lets through."""

from typing import Any

from fastpubsub import filters
from fastpubsub.searches import Search
from fastpubsub.testing.store.records import (
    Stored,
)

Filter = dict[str, Any]


def read_filter(text: bytes | str | None) -> Filter | None:
    """Reads the filter with its numbers as written."""
    return None if text is None else filters.read(text) or None


def matches(
    wanted: Filter | None, payload: bytes, attributes: bytes | None = None, ordering_key: str | None = None
) -> bool:
    """Whether a message with these passes."""
    if not wanted:
        return True
    beside = filters.Beside(filters.read(attributes or b"null"), ordering_key)
    return filters.matches(wanted, filters.read(payload), beside)


def attribute_of(message: Stored, name: str) -> str | None:
    value: str | None = filters.read(message.attributes or b"{}").get(name)
    return value


def passes(wanted: Filter | None, message: Stored) -> bool:
    return matches(wanted, message.payload, message.attributes, message.ordering_key)


def is_found(search: Search | None, message: Stored) -> bool:
    """In the text of the payload, where ASCII letters have no case, in one of its fields, or in an attribute."""
    if search is None:
        return True
    if search.where == "text":
        return any(value.encode().lower() in message.payload.lower() for value in search.values)
    document = filters.read(message.payload if search.where == "payload" else message.attributes or b"{}")
    values = [filters.read(one) for one in search.values] if search.where == "payload" else search.values
    return search.name in document and any(
        type(document[search.name]) is type(value) and document[search.name] == value for value in values
    )
