"""A process of its own for whoever publishes or handles, as in production."""

import asyncio
import logging
import multiprocessing
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import TypeVar

import psutil

from benchmarks.errors import BenchmarkError

ANSWER_SECONDS = 900.0
_SPAWN = multiprocessing.get_context("spawn")
T = TypeVar("T")
Coroutine = Callable[..., Awaitable[T]]
"""A function that is one."""


class Driver:
    """Runs coroutine functions of `load`, one at a time, each in an event loop of its own."""

    def __init__(self) -> None:
        self._ours, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.process = psutil.Process(self._process.pid)

    def run(self, function: Coroutine[T], *arguments: object) -> T:
        self.begin(function, *arguments)
        return self.end(function)

    def begin(self, function: Coroutine[T], *arguments: object) -> None:
        self._ours.send((function, arguments))

    def end(self, function: Coroutine[T]) -> T:
        """What the function that was begun returns."""
        if not self._ours.poll(ANSWER_SECONDS):
            raise BenchmarkError(f"{function.__name__} did not end in {ANSWER_SECONDS:g} s")
        try:
            answer: T | str = self._ours.recv()
        except EOFError:
            raise BenchmarkError(f"the process of {function.__name__} died") from None
        if isinstance(answer, _Failed):
            raise BenchmarkError(f"{function.__name__}: {answer}")
        return answer  # type: ignore[return-value]

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


class _Failed(str):
    __slots__ = ()


def _serve(pipe: Connection) -> None:
    logging.disable(logging.ERROR)  # what libraries say when a consumer is cancelled
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(asyncio.run(function(*arguments)))
        except Exception as error:  # noqa: BLE001 - told on the other side
            pipe.send(_Failed(f"{type(error).__name__}: {error}"))
