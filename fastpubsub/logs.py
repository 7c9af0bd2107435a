"""Logs one line for each event of ours, uvicorn and gunicorn to standard error, in the style of the settings."""

import logging
import logging.config
import os
import sys
from typing import Any

from fastpubsub.addresses import is_loopback
from fastpubsub.config import Settings, misspelt
from fastpubsub.log_lines import Style, formatter

logger = logging.getLogger("fastpubsub")


def style_of(settings: Settings) -> Style:
    """What `auto` means here: for people on a terminal, unless a format is given."""
    if settings.log_style != "auto":
        return settings.log_style
    return "terminal" if sys.stderr.isatty() and "log_formatter" not in settings.model_fields_set else "line"


def logging_config(settings: Settings) -> dict[str, Any]:
    level = settings.log_level.upper()
    ours = {"level": level, "handlers": [], "propagate": True}
    # Its information is about starting and stopping, which gunicorn or `dev` tell already.
    # In detail it tells what was in the headers and frames of WebSockets.
    uvicorns = ours | {"level": {"INFO": "WARNING", "DEBUG": "INFO"}.get(level, level)}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": lambda: formatter(style_of(settings), settings.log_formatter, sys.stderr)}},
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


def show_all(settings: Settings, noting: logging.Filter) -> None:
    """Shows the logs of other modules, too, for a process that runs functions of users; the filter notes of what."""
    root = logging.getLogger()
    root.setLevel(settings.log_level.upper())
    for handler in root.handlers:
        handler.addFilter(noting)
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
