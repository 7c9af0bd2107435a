"""Kinds of arguments and options that several commands take."""

import json
import math
from typing import Annotated, Any

import typer

NONE = "null"


def text(value: str | None) -> str | None:
    if value is not None:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise typer.BadParameter("this is not UTF-8") from None
    return value


def object_id(value: str) -> str:
    """Whatever can be sent; the server knows what an id is."""
    if value in ("", ".", ".."):
        raise typer.BadParameter(f"{value!r} is no id")
    return text(value) or value


def object_ids(values: list[str] | None) -> list[str]:
    return [object_id(value) for value in values or []]


def json_value(value: str, name: str) -> Any:
    try:
        return json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{name} is no JSON: {error}") from None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is none of its numbers")


def number_or_none(value: str | None, name: str) -> int | None:
    """For what has a default at the server that can be asked for again."""
    if value is None or value == NONE:
        return None
    if not value.isascii() or not value.isdecimal() or len(value) > int(math.log10(2**63)):
        raise typer.BadParameter(f"{name}: {value!r} is neither a whole number nor {NONE}")
    return int(value)


TopicId = Annotated[str, typer.Argument(metavar="TOPIC", callback=object_id, help="The id of the topic.")]
SubscriptionId = Annotated[str, typer.Argument(metavar="SUB", callback=object_id, help="The id of the subscription.")]
ClientId = Annotated[str, typer.Argument(metavar="CLIENT", callback=object_id, help="The id of the client.")]
Limit = Annotated[int | None, typer.Option(help="As many at most; all unless given.", min=1, show_default=False)]
Offset = Annotated[int, typer.Option(help="Leave out as many at the beginning.", min=0)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
ExistOk = Annotated[bool, typer.Option("--exist-ok", help="Show it when it is there already, instead of failing.")]
