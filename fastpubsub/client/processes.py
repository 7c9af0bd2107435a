"""Several processes for workers, for functions that keep a processor busy: a parent that only watches over them."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("fastpubsub.client")

STOPPING = (signal.SIGTERM, signal.SIGINT)
AGAIN_SECONDS = 1.0
"""Between the starts of a process that is killed again and again."""


def supervise(count: int) -> Callable[[], None]:
    """Returns in each of so many children, which call the result when they have loaded what they run.

    The parent does not return: it ends when all of them have ended, with the worst of their exit codes. It passes
    on the signals to stop, and starts again what was killed. A child that fails stops the others; if the first one
    fails to load, there are no others.
    """
    return Supervisor(count).run()


class Supervisor:
    def __init__(self, count: int) -> None:
        self._count = count
        self._children: dict[int, float] = {}
        """When each was started, by process id."""
        self._stopping = False
        self._exit_code = 0
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, signal.SIGCHLD})
        self._read, self._write = os.pipe()
        """Ends, for the children, with the parent."""

    def run(self) -> Callable[[], None]:
        signal.signal(signal.SIGCHLD, lambda *_: None)  # an ignored one could not be waited for
        loading, loaded = os.pipe()
        if self._fork():
            os.close(loading)
            return lambda: os.close(loaded)
        os.close(loaded)
        os.read(loading, 1)
        os.close(loading)
        while True:
            self._reap()
            while not self._stopping and len(self._children) < self._count:
                if self._fork():
                    return lambda: None
            if not self._children:
                raise SystemExit(self._exit_code)
            if signal.sigwait({*STOPPING, signal.SIGCHLD}) in STOPPING:
                self._stop()

    def _fork(self) -> bool:
        """Whether this is the child."""
        if pid := os.fork():
            self._children[pid] = time.monotonic()
            return False
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        os.close(self._write)
        threading.Thread(target=_end_with, args=(self._read,), daemon=True).start()
        return True

    def _stop(self) -> None:
        """Each time: the third one does not wait."""
        self._stopping = True
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)

    def _reap(self) -> None:
        for pid, started in list(self._children.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self._children[pid]
                self._ended(pid, os.waitstatus_to_exitcode(status), time.monotonic() - started)

    def _ended(self, pid: int, code: int, seconds: float) -> None:
        if self._stopping:
            self._exit_code = max(self._exit_code, 1 if code < 0 else code)
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
