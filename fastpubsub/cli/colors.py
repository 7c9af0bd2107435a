"""Colors, for a terminal that has them and a person who wants them."""

import os
import sys
from typing import Literal, TextIO

Style = Literal["bold", "red", "green", "yellow"]
CODES: dict[Style, str] = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}


def styled(text: str, style: Style, stream: TextIO | None = None) -> str:
    """The text must be printable already; `stream` is standard output if it is not given."""
    return f"\x1b[{CODES[style]}m{text}\x1b[0m" if text and has_colors(stream or sys.stdout) else text


def has_colors(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
