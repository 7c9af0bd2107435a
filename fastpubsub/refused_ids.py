"""Ids of refused messages: `refused-` and a number. They can be guessed, and give no rights."""

import re

from fastpubsub.exceptions import InvalidRequest

_SHAPE = re.compile(r"refused-([1-9][0-9]{0,17})", re.ASCII)


def refused_id(key: int) -> str:
    return f"refused-{key}"


def parse(text: str) -> int:
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise InvalidRequest("the id of a refused message is `refused-` and a number, from the list of its topic")
    return int(match[1])
