"""Logging: one line an event, in the format of the settings, on standard error, of us, uvicorn and gunicorn."""

import ipaddress
import logging
import logging.config
import os
import re
import time
from typing import Any

from fastpubsub.config import Settings, misspelt

logger = logging.getLogger("fastpubsub")

_PLACE = "\x00"
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\U0010ffff]")


class Events(list[str]):
    """The message of a record that stands for several events of one moment: each gets its own line."""

    def __str__(self) -> str:
        return "\n".join(self)


class LineFormatter(logging.Formatter):
    """Keeps an event on its line: line ends in a message are escaped, the lines of a traceback are indented."""

    def __init__(self, fmt: str) -> None:
        super().__init__(fmt)
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


def escape(text: str) -> str:
    return text if text.isprintable() else _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def logging_config(settings: Settings) -> dict[str, Any]:
    level = settings.log_level.upper()
    ours = {"level": level, "handlers": [], "propagate": True}
    # Its information is about starting and stopping, which gunicorn or `dev` tell already.
    # In detail it tells what was in the headers and frames of WebSockets.
    uvicorns = ours | {"level": {"INFO": "WARNING", "DEBUG": "INFO"}.get(level, level)}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": LineFormatter, "fmt": settings.log_formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "fastpubsub": ours,
            "uvicorn": uvicorns,
            "uvicorn.error": uvicorns,
            "gunicorn.error": ours,
            # Our own middleware writes the line of a request.
            "uvicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
        },
    }


def configure(settings: Settings) -> None:
    logging.config.dictConfig(logging_config(settings))


def show_all(settings: Settings) -> None:
    """Also what other modules of the process log: for a process that runs functions of users."""
    logging.getLogger().setLevel(settings.log_level.upper())
    for name in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def warn_about(settings: Settings) -> None:
    """Says what is dangerous about these settings, once, at the start of a server."""
    for sentence in misspelt(os.environ):
        logger.warning("%s", sentence)
    if is_loopback(settings.api_host):
        return
    if not settings.auth_enabled:
        logger.warning(
            "AUTHENTICATION IS OFF and the server listens on %s: everyone who can reach it can read, publish and "
            "delete everything; set FASTPUBSUB_AUTH_ENABLED=true and FASTPUBSUB_AUTH_SECRET_KEY, "
            "or FASTPUBSUB_API_HOST=127.0.0.1",
            settings.api_host,
        )
    if settings.api_debug:
        logger.warning(
            "DEBUG MODE IS ON and the server listens on %s: answers to internal errors carry tracebacks; "
            "set FASTPUBSUB_API_DEBUG=false",
            settings.api_host,
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
