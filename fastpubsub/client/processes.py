"""Several processes for workers, for functions that keep a processor busy: a parent that only watches over them."""

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastpubsub.client.watching import Files

logger = logging.getLogger("fastpubsub.client")

STOPPING = (signal.SIGTERM, signal.SIGINT)
WATCH_SECONDS = 0.5
AGAIN_SECONDS = 1.0
"""Between the starts of a process that is killed again and again."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that runs workers."""

    number: int
    """From 0; one that was killed leaves it to the next."""
    loaded: Callable[[], None]
    """To be called when it has loaded what it runs."""


def supervise(count: int, watched: Path | None = None) -> Child:
    """Returns in each of so many children.

    The parent does not return: it ends when all of them have ended, with the worst of their exit codes. It passes
    on the signals to stop, and starts again what was killed. A child that fails stops the others; if the first one
    fails to load, there are no others.

    With a `watched` folder they start again when a Python file in it changes, and one that fails waits for a change.
    """
    return Supervisor(count, watched).run()


class Supervisor:
    def __init__(self, count: int, watched: Path | None = None) -> None:
        self._count = count
        self._files = None if watched is None else Files(watched)
        self._children: dict[int, tuple[float, int]] = {}
        """When each was started, and its number, by process id."""
        self._number = 0
        self._waits_for_change = False
        self._changed_at = 0.0
        self._stopping = False
        self._exit_code = 0
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, signal.SIGCHLD, signal.SIGALRM})
        self._read, self._write = os.pipe()
        """Ends, for the children, with the parent."""

    def run(self) -> Child:
        signal.signal(signal.SIGCHLD, lambda *_: None)  # an ignored one could not be waited for
        parent = os.getpid()
        loading, loaded = os.pipe()
        if self._fork():
            os.close(loading)

            def say_loaded() -> None:
                os.close(loaded)
                with suppress(ProcessLookupError):
                    os.kill(parent, signal.SIGCHLD)

            return Child(0, say_loaded)
        os.close(loaded)
        while self._is_open(loading):
            self._wait()
        os.close(loading)
        while True:
            self._reap()
            while not self._stopping and not self._waits_for_change and len(self._children) < self._count:
                if self._fork():
                    return Child(self._number, lambda: None)
            if not self._children and not self._waits_for_change:
                raise SystemExit(self._exit_code)
            self._wait()

    @staticmethod
    def _is_open(pipe: int) -> bool:
        return not select.select([pipe], [], [], 0)[0]

    def _wait(self) -> None:
        """For a signal, or with watched files for half a second."""
        if self._files is not None:
            signal.setitimer(signal.ITIMER_REAL, WATCH_SECONDS)
        got = signal.sigwait({*STOPPING, signal.SIGCHLD, signal.SIGALRM})
        if got in STOPPING:
            self._waits_for_change = False
            self._stop()
        elif self._files is not None and not self._stopping and (changed := self._files.changed()):
            logger.info("%s has changed: the workers start again", changed)
            self._waits_for_change, self._changed_at = False, time.monotonic()
            self._end_children()

    def _fork(self) -> bool:
        """Whether this is the child."""
        taken = {number for _, number in self._children.values()}
        self._number = next(number for number in range(self._count) if number not in taken)
        if pid := os.fork():
            self._children[pid] = time.monotonic(), self._number
            return False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        os.close(self._write)
        threading.Thread(target=_end_with, args=(self._read,), daemon=True).start()
        return True

    def _stop(self) -> None:
        """Each time: the third one does not wait."""
        self._stopping = True
        self._end_children()

    def _end_children(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)

    def _reap(self) -> None:
        for pid, (started, _) in list(self._children.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self._children[pid]
                self._ended(pid, os.waitstatus_to_exitcode(status), time.monotonic() - started)

    def _ended(self, pid: int, code: int, seconds: float) -> None:
        if self._stopping:
            if -code in STOPPING:  # as it was told to, before it loaded or after its last message
                code = 0
            self._exit_code = max(self._exit_code, 1 if code < 0 else code)
        elif self._files is not None and code >= 0:
            is_of_before = time.monotonic() - seconds < self._changed_at
            self._waits_for_change = code > 0 and not is_of_before
        elif code > 0:
            logger.error("a process of the workers has failed, so the others stop: process=%d exit_code=%d", pid, code)
            self._exit_code = code
            self._stop()
        else:
            how = "was stopped" if code == 0 else f"was killed by {signal.Signals(-code).name}"
            logger.warning("a process of the workers %s and is started again: process=%d", how, pid)
            time.sleep(max(0.0, AGAIN_SECONDS - seconds))


def _end_with(parent: int) -> None:
    os.read(parent, 1)
    os.kill(os.getpid(), signal.SIGTERM)
