"""Prints messages to people, and exits with a code."""

import sys
from contextlib import suppress
from typing import NoReturn

from fastpubsub.cli.colors import styled

FAILED = 1
WRONG_USAGE = 2
FOUND_SOMETHING = 3
INTERRUPTED = 130

JOINERS = "\u200c\u200d"
"""Invisible, and part of words and emoji."""


def note(sentence: str) -> None:
    """Prints to people; only data for programs goes to standard output. Quoted text cannot control the terminal."""
    _print(printable(sentence))


def fail(sentences: str, code: int) -> NoReturn:
    for sentence in sentences.splitlines():
        _print(f"{styled('fastpubsub:', 'red', sys.stderr)} {printable(sentence)}")
    raise SystemExit(code)


def _print(line: str) -> None:
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Escapes characters that control a terminal or change the direction of text."""
    if text.isprintable():
        return text
    return "".join(one if _is_harmless(one) else one.encode("unicode_escape").decode() for one in text)


def printable_json(text: str) -> str:
    """Returns the same JSON with escapes, which are in strings only, apart from the white space between tokens."""
    text = text.replace("\t", " ")
    if text.isprintable():
        return text
    return "".join(one if _is_harmless(one) else _escape(one) for one in text)


def _escape(one: str) -> str:
    return "".join(f"\\u{unit:04x}" for unit in memoryview(one.encode("utf-16")[2:]).cast("H"))


def _is_harmless(one: str) -> bool:
    return one.isprintable() or one in JOINERS
