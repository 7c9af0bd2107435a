"""Writes a line to the log for each request.

The requests that end in one turn of the event loop, such as those that one call of the database answers, are one record
and one write: to make a record and to write a line took more time than anything else that surrounds a request.
"""

import asyncio
import logging
import os
import time
from urllib.parse import quote

from starlette.types import Scope

from fastpubsub.log_lines import Events, escape

logger = logging.getLogger("fastpubsub.requests")

MAX_PATH = 200
MAX_CHARACTERS = 2000
"""Of one write, about: a pipe keeps those of several processes apart up to 4,096 bytes."""


class RequestLog:
    def __init__(self, *, is_on: bool = True, real_paths: bool = False) -> None:
        """`real_paths`: those that were asked for, with the ids in them, instead of those of the routes."""
        self._is_on = is_on
        self._real_paths = real_paths
        self._events = Events()
        self._characters = 0

    def add(self, level: int, scope: Scope, template: str | None, status: int, seconds: float) -> None:
        """`template` is the path of the route, without ids in it; None for a request that has no route."""
        if not self._is_on or not logger.isEnabledFor(level):
            return
        event = _event(scope, None if self._real_paths else template, status, seconds)
        if level != logging.INFO:
            self._write()
            logger.handle(_record(level, Events([event])))
            return
        if not self._events:
            asyncio.get_running_loop().call_soon(self._write)
        self._events.append(event)
        self._characters += len(event)
        if self._characters > MAX_CHARACTERS:
            self._write()

    def _write(self) -> None:
        if self._events:
            events, self._events, self._characters = self._events, Events(), 0
            logger.handle(_record(logging.INFO, events))


def _event(scope: Scope, template: str | None, status: int, seconds: float) -> str:
    state = scope["state"]
    path = template or quote(scope["path"][:MAX_PATH], errors="replace")
    event = (
        f"method={scope['method']} path={path} status={status} duration_ms={seconds * 1000:.3f}"
        f" request_id={state['request_id']}"
    )
    if (caller := state.get("caller")) is not None:
        event = f"{event} client_id={caller.client_id}"
    if "error" in state:
        event = f'{event} error="{escape(state["error"])}"'
    return event


def _record(level: int, events: Events) -> logging.LogRecord:
    """Makes the record as the logger would, but without searching the stack for the caller."""
    record = logging.LogRecord.__new__(logging.LogRecord)
    now = time.time()
    record.__dict__.update(
        _RECORD,
        levelno=level,
        levelname=logging.getLevelName(level),
        msg=events,
        created=now,
        msecs=now % 1 * 1000,
        process=os.getpid(),
    )
    return record


_RECORD = vars(logging.LogRecord(logger.name, logging.INFO, __file__, _record.__code__.co_firstlineno, "", (), None))
