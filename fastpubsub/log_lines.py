"""Lines of the log: in the format of Python's logging, as JSON, and for people on a terminal."""

import json
import logging
import os
import re
import time
from typing import Any, Literal, TextIO

Style = Literal["line", "json", "terminal"]

OF_MESSAGES = ("message_id", "subscription_id", "trace_id")
"""What records of the functions of a worker have; a format may name them everywhere."""

_PLACE = "\x00"
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\U0010ffff]")
_PAIR = re.compile(r'(\w+)=(".*"$|\S+)(?: |$)')
_NUMBERS = {"status": int, "duration_ms": float}
_COLORS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_STATUS_COLORS = {2: "32", 3: "36", 4: "33", 5: "31"}
_DIM = "2"


class Events(list[str]):
    """The message of a record that stands for several events of one moment: each gets its own line."""

    def __str__(self) -> str:
        return "\n".join(self)


class LineFormatter(logging.Formatter):
    """Keeps an event on its line: line ends in a message are escaped, the lines of a traceback are indented."""

    def __init__(self, fmt: str) -> None:
        super().__init__(fmt, defaults=dict.fromkeys(OF_MESSAGES, ""))
        self._second = 0
        self._date = ""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        if isinstance(record.msg, Events):
            record.message = _PLACE
            line = super().formatMessage(record)
            return "\n".join([line.replace(_PLACE, escape(event)) for event in record.msg])
        record.message = escape(record.message)
        return super().formatMessage(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        second = int(record.created)
        if second != self._second:
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._date}.{int(record.msecs):03d}Z"

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join("  " + escape(line) for line in super().formatException(ei).split("\n"))


class JsonFormatter(LineFormatter):
    """An object on each line; those of requests have a member for each value."""

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        about = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
        }
        if isinstance(record.msg, Events):
            return "\n".join(_encoded(about | values_of(event)) for event in record.msg)
        about |= {name: value for name in OF_MESSAGES if (value := getattr(record, name, ""))}
        about["message"] = record.getMessage()
        if record.exc_info:
            about["exception"] = logging.Formatter.formatException(self, record.exc_info)
        return _encoded(about)


class TerminalFormatter(LineFormatter):
    """Short, with the time of this place; a request that was refused has its id."""

    def __init__(self, *, is_colored: bool) -> None:
        super().__init__("%(message)s")
        self._is_colored = is_colored

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return time.strftime("%H:%M:%S", time.localtime(record.created))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        at = self._colored(self.formatTime(record), _DIM)
        if isinstance(record.msg, Events):
            return "\n".join(f"{at} {self._request(event)}" for event in record.msg)
        level = self._colored(f"{record.levelname:8}", _COLORS.get(record.levelname, "0"))
        return f"{at} {level} {escape(record.message)}"

    def _request(self, event: str) -> str:
        values = values_of(event)
        status, error = values.get("status"), values.get("error")
        if not isinstance(status, int):
            return escape(event)
        shown = self._colored(str(status), _STATUS_COLORS.get(status // 100, "0"))
        line = f"{shown} {values['method']} {escape(str(values['path']))} {values['duration_ms']:.1f} ms"
        if status >= 400:
            line += self._colored(f" request_id={values['request_id']}", _DIM)
        return f"{line} {escape(str(error))}" if error else line

    def _colored(self, text: str, color: str) -> str:
        return f"\x1b[{color}m{text}\x1b[0m" if self._is_colored else text


def formatter(style: Style, fmt: str, stream: TextIO) -> logging.Formatter:
    if style == "json":
        return JsonFormatter()
    if style == "terminal":
        return TerminalFormatter(is_colored=stream.isatty() and not os.environ.get("NO_COLOR"))
    return LineFormatter(fmt)


def values_of(event: str) -> dict[str, Any]:
    """Returns what the line of a request says, numbers as numbers."""
    return {
        name: _NUMBERS.get(name, str)(value[1:-1] if value[0] == '"' else value) for name, value in _PAIR.findall(event)
    }


def escape(text: str) -> str:
    return text if text.isprintable() else _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def _encoded(members: dict[str, Any]) -> str:
    """In ASCII, so that no line end of any kind and no half of a surrogate pair is in it."""
    return json.dumps(members, separators=(",", ":"))
