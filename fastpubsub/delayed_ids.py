"""Ids of delayed messages: `delayed-` and a number. They can be guessed, and give no rights."""

import re

from fastpubsub.exceptions import InvalidRequest

_SHAPE = re.compile(r"delayed-([1-9][0-9]{0,17})", re.ASCII)


def delayed_id(key: int) -> str:
    return f"delayed-{key}"


def parse(text: str) -> int:
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise InvalidRequest("the id of a delayed message is `delayed-` and a number, from the answer of a publish")
    return int(match[1])
