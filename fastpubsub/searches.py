"""What is searched for among the messages of a topic, and where: the parameters `q`, `from` and `before`."""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from fastpubsub import message_ids
from fastpubsub.exceptions import FastpubsubError, InvalidRequest
from fastpubsub.json_text import check_json
from fastpubsub.models import Time

_TIME: TypeAdapter[datetime] = TypeAdapter(Time)
_SEARCH = re.compile(r"(payload|attributes)\.([^=]*)=(.*)", re.DOTALL)
_POSITION = re.compile(r"\d{1,18}", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}")
_DUE = re.compile(r"(.+)/(\d{1,18})", re.ASCII)


class Search(NamedTuple):
    """One of `values` in the text of the payload, as its field `name`, or as the attribute `name`."""

    where: str
    name: str | None
    values: Sequence[str]


class Place(NamedTuple):
    """Where to begin: a position, a time, or of the waiting messages both."""

    position: int | None
    time: datetime | None


def parse_search(text: str) -> Search:
    """`payload.field=value`, `attributes.name=value`, or a text that is anywhere in the payload."""
    match = _SEARCH.fullmatch(text)
    if match is None:
        # As it is, and as JSON may have written it.
        return Search("text", None, sorted({text, json.dumps(text)[1:-1]}))
    where, name, value = match.groups()
    if where == "attributes":
        return Search(where, name, [value])
    values = [json.dumps(value)]
    try:
        check_json(value.encode())
        values.append(value)
    except FastpubsubError:
        pass
    return Search(where, name, values)


def parse_place(text: str | None, topic_key: int) -> Place:
    if text is None:
        return Place(None, None)
    if _POSITION.fullmatch(text):
        return Place(int(text), None)
    if not _UUID.fullmatch(text):
        return Place(
            None,
            _time(text, "`from` and `before` take a position, a message id, or a time such as 2026-01-31T12:00:00Z"),
        )
    message = message_ids.parse(text)
    if message is None or message.topic_key != topic_key:
        raise InvalidRequest(f"{text} is not a message of this topic")
    return Place(message.position, None)


def parse_due(text: str | None) -> Place:
    if text is None:
        return Place(None, None)
    time, position = match.groups() if (match := _DUE.fullmatch(text)) else (text, None)
    expected = "`from` of waiting messages, which come when they are due, takes a time, or `next` of the answer before"
    return Place(None if position is None else int(position), _time(time, expected))


def _time(text: str, expected: str) -> datetime:
    try:
        return _TIME.validate_python(text)
    except ValidationError:
        raise InvalidRequest(expected) from None
