"""Ctrl-C and SIGTERM end a command between two messages, never between a message and its acknowledgement."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from fastpubsub.stopping import insisting


class Interrupts:
    """Both signals raise KeyboardInterrupt, unless it is `deferred`; the second one always does."""

    def __init__(self) -> None:
        self._deferring = False
        self._count = 0

    @contextmanager
    def installed(self) -> Iterator["Interrupts"]:
        with ExitStack() as stack:
            stack.enter_context(insisting(KeyboardInterrupt, self._raise))
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, self._handle))
            yield self

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._count:
            signal.setitimer(signal.ITIMER_REAL, 0)  # nothing insists on what is raised here
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self._raise(number, frame)

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        if self._count > 1 or not self._deferring:
            raise KeyboardInterrupt
