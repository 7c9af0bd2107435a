"""Signals to stop: the first begins, a second changes nothing, a third does not wait."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
BURST_SECONDS = 0.1
"""One wish to stop can arrive several times: `timeout`, make and systemd signal a process, and its group too."""

AGAIN_SECONDS = 0.01
"""Until what Python dropped is raised again."""

CUT = 1
"""Exit code when requests in flight got no answer."""


class Orders:
    """Counts how often this process was told to stop."""

    def __init__(self) -> None:
        self.count = 0
        self._last = float("-inf")

    def came(self) -> int:
        now = time.monotonic()
        if now - self._last > BURST_SECONDS:
            self.count += 1
        self._last = now
        return self.count

    @property
    def hurried(self) -> bool:
        return self.count > 2


def handled() -> list[signal.Signals]:
    """Returns the signals that are not ignored from the start, as nohup ignores SIGHUP."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def insisting(kind: type[BaseException], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Calls a signal handler that raises `kind` again when Python drops what it raised. Takes SIGALRM for that.

    No exception comes out of `__del__` or out of the callback of a weak reference, and a signal may arrive during
    either: a process that was told to end would not notice.
    """
    before = sys.unraisablehook

    def hook(dropped: "UnraisableHookArgs") -> None:
        if issubclass(dropped.exc_type, kind):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
        else:
            before(dropped)

    def again(number: int, frame: FrameType | None) -> None:
        if not _is_in(hook.__code__, frame):  # out of which no exception comes, either
            signal.setitimer(signal.ITIMER_REAL, 0)
            handler(number, frame)

    alarmed = signal.signal(signal.SIGALRM, again)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = before
        signal.signal(signal.SIGALRM, alarmed)


def _is_in(code: CodeType, frame: FrameType | None) -> bool:
    """Whether the frame is one of a call of it, or of what that has called."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None
