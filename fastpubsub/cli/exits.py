"""What a command says to people, and the code that it ends with."""

import sys
from contextlib import suppress
from typing import NoReturn

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130

JOINERS = "\u200c\u200d"
"""Invisible, and part of words and emoji."""


def note(sentence: str) -> None:
    """For people; what programs read goes to standard output alone."""
    with suppress(BrokenPipeError):
        print(sentence, file=sys.stderr, flush=True)


def fail(sentences: str, code: int) -> NoReturn:
    for sentence in sentences.splitlines():
        note(f"fastpubsub: {sentence}")
    raise SystemExit(code)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """What steers a terminal, or turns the direction of what follows, is shown as an escape."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in JOINERS else one.encode("unicode_escape").decode() for one in text
    )
