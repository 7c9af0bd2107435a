"""How a handler is called, and what its exceptions mean."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastpubsub.client.pulling import MAX_BATCH
from fastpubsub.client.topics import AnyTopic
from fastpubsub.models import Message

Exceptions: TypeAlias = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True)
class Once:
    """Remembers messages in the transaction of a dependency: what `is_first` refuses was done, and is acknowledged."""

    dependency: Callable[..., Any]
    is_first: Callable[[Any, Message], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Options:
    """`retry_on` and `reject_on` are exceptions that are expected: they are told in a line, without a traceback."""

    retry_on: Exceptions = ()
    reject_on: Exceptions = ()
    timeout_seconds: float | None = None
    publish_to: AnyTopic | None = None
    once: Once | None = None
    batch_size: int | None = None
    may_take_nothing: bool = False
    """Neither a payload nor a message."""

    def __post_init__(self) -> None:
        for name in ("retry_on", "reject_on"):
            given: tuple[object, ...] = _tuple(getattr(self, name))
            if not all(isinstance(one, type) and issubclass(one, Exception) for one in given):
                raise TypeError(f"{name} is an exception class, or a tuple of them")
        if self.timeout_seconds is not None and not 0 < self.timeout_seconds < float("inf"):
            raise ValueError("timeout_seconds is a positive number of seconds")
        if self.batch_size is not None and not 1 <= self.batch_size <= MAX_BATCH:
            raise ValueError(f"batch_size is a number of messages from 1 to {MAX_BATCH}")

    @property
    def expected(self) -> tuple[type[Exception], ...]:
        return _tuple(self.retry_on) + _tuple(self.reject_on)


def _tuple(exceptions: Exceptions) -> tuple[type[Exception], ...]:
    return exceptions if isinstance(exceptions, tuple) else (exceptions,)


DEFAULT = Options()
