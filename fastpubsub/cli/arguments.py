"""Kinds of arguments and options that several commands take."""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from fastpubsub.cli.completing import subscription_ids, topic_ids

NONE = "null"


def text(value: str | None) -> str | None:
    if value is not None:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise typer.BadParameter("this is not UTF-8") from None
    return value


def object_id(value: str) -> str:
    """Accepts every text that can be sent; the server checks ids."""
    if value in ("", ".", ".."):
        raise typer.BadParameter(f"{value!r} is not an id")
    return text(value) or value


def object_ids(values: list[str] | None) -> list[str]:
    return [object_id(value) for value in values or []]


class Json(str):
    """Goes into a body as it is: numbers stay what they are."""

    __slots__ = ()


def json_text(value: str, name: str) -> Json:
    try:
        json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{name} is not JSON: {error}") from None
    return Json(text(value))


def body_of(members: Mapping[str, Any]) -> bytes:
    texts = {name: value if isinstance(value, Json) else json.dumps(value) for name, value in members.items()}
    return "".join(["{", ",".join(f'"{name}":{value}' for name, value in texts.items()), "}"]).encode()


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def number_or_none(value: str | None, name: str) -> int | None:
    """Parses a setting whose default at the server can be restored."""
    if value is None or value == NONE:
        return None
    if not value.isascii() or not value.isdecimal() or len(value) > int(math.log10(2**63)):
        raise typer.BadParameter(f"{name}: {value!r} is neither a whole number nor {NONE}")
    return int(value)


def time(value: str) -> datetime:
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter(f"write a time as 2026-01-31T12:00:00Z, not {value!r}") from None
    if found.tzinfo is None:
        raise typer.BadParameter(f"{value!r} has no time zone: add Z, or an offset such as +01:00")
    return found


DeliverAt = Annotated[
    datetime | None,
    typer.Option(
        "--deliver-at",
        metavar="TIME",
        parser=time,
        help="When messages arrive, such as 2026-01-31T12:00:00Z.",
        show_default=False,
    ),
]
DelaySeconds = Annotated[
    int | None, typer.Option("--delay-seconds", help="After how many seconds messages arrive.", show_default=False)
]
TtlSeconds = Annotated[
    int | None,
    typer.Option(
        "--ttl-seconds",
        help="After how many seconds messages expire; delayed ones, after they have arrived.",
        show_default=False,
    ),
]
ExpiresAt = Annotated[
    datetime | None,
    typer.Option(
        "--expires-at",
        metavar="TIME",
        parser=time,
        help="When messages expire, such as 2026-01-31T12:00:00Z.",
        show_default=False,
    ),
]
TopicId = Annotated[
    str,
    typer.Argument(metavar="TOPIC", callback=object_id, autocompletion=topic_ids, help="The id of the topic."),
]
SubscriptionId = Annotated[
    str,
    typer.Argument(
        metavar="SUB", callback=object_id, autocompletion=subscription_ids, help="The id of the subscription."
    ),
]
TopicIds = Annotated[
    list[str],
    typer.Argument(metavar="TOPIC", callback=object_ids, autocompletion=topic_ids, help="The ids of the topics."),
]
SubscriptionIds = Annotated[
    list[str],
    typer.Argument(
        metavar="SUB", callback=object_ids, autocompletion=subscription_ids, help="The ids of the subscriptions."
    ),
]
ClientId = Annotated[str, typer.Argument(metavar="CLIENT", callback=object_id, help="The id of the client.")]
Limit = Annotated[int | None, typer.Option(help="How many to list; all by default.", min=1, show_default=False)]
Offset = Annotated[int, typer.Option(help="How many to skip at the beginning.", min=0)]
Stats = Annotated[bool, typer.Option("--stats", help="Also show counts, ages, and rates of the last minute.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
ExistOk = Annotated[
    bool,
    typer.Option("--exist-ok", help="If it already exists with the given settings, show it instead of failing."),
]


def attributes_of(given: list[str]) -> dict[str, str]:
    attributes = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{one!r} is not NAME=VALUE")
        attributes[name] = text(value) or ""
    return attributes
