"""Ctrl-C and SIGTERM end a command between two messages, never between a message and its acknowledgement."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Both signals raise KeyboardInterrupt, unless it is `deferred`; the second one always does."""

    def __init__(self) -> None:
        self._deferring = False
        self._came = False

    @contextmanager
    def installed(self) -> Iterator["Interrupts"]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._handle) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._came:
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        again, self._came = self._came, True
        if again or not self._deferring:
            raise KeyboardInterrupt
