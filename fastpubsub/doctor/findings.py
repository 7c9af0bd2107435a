"""Findings, and their text."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

Level = Literal["ok", "warning", "problem"]

STATEMENT_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    what: str
    why: str = ""
    next_step: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(check, "ok", what)


def warning(check: str, what: str, why: str, next_step: str) -> Finding:
    return Finding(check, "warning", what, why, next_step)


def problem(check: str, what: str, why: str, next_step: str) -> Finding:
    return Finding(check, "problem", what, why, next_step)


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    return str(timedelta(seconds=int(seconds)))


def size(count: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"


def printable(text: str | None) -> str:
    """Others wrote it: on one line, short, and nothing in it that a terminal would obey."""
    shown = " ".join((text or "").split())[:STATEMENT_CHARACTERS]
    return "".join(one if one.isprintable() else "?" for one in shown)
