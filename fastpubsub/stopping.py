"""Signals to stop: the first begins, a second changes nothing, a third does not wait."""

import signal
import time

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
BURST_SECONDS = 0.1
"""One wish to stop can arrive several times: `timeout`, make and systemd signal a process, and its group too."""

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
