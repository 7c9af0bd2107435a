"""What everybody saw, a line of JSON per event; a call begins with one and ends with another."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple


class Kind(StrEnum):
    INVOKE = "invoke"
    OK = "ok"
    REFUSED = "refused"
    """Surely not done."""
    UNKNOWN = "unknown"
    """Perhaps done: no answer, or 503."""
    NOTE = "note"
    """Not a call: a fault, or what was there at the end."""


class Number(NamedTuple):
    """Names a message. What is in it follows from its number."""

    publisher: str
    request: int
    place: int

    @property
    def parity(self) -> int:
        return self.place % 2

    @property
    def tenant(self) -> str:
        """Of most messages the noisy one."""
        return self.publisher if self.place == 0 else "noisy"

    @property
    def is_poison(self) -> bool:
        return self.request % 40 == 0 and self.place == 0

    @property
    def is_misfit(self) -> bool:
        """In a topic with a schema, which it does not match."""
        return (self.request + self.place) % 5 == 1

    @property
    def delay_seconds(self) -> int | None:
        """In a topic whose messages have times."""
        return (None, 1, None, 2)[(self.request + self.place) % 4]

    @property
    def ttl_seconds(self) -> int | None:
        return (None, 2, None)[(self.request + self.place) % 3]

    def payload(self) -> dict[str, Any]:
        return {"number": list(self), "parity": self.parity}

    def times(self) -> dict[str, int]:
        times = {"delay_seconds": self.delay_seconds, "ttl_seconds": self.ttl_seconds}
        return {name: seconds for name, seconds in times.items() if seconds is not None}


@dataclass(frozen=True, slots=True)
class Event:
    time: float
    """By the clock of the machine, on which load, servers and database run."""
    who: str
    kind: Kind
    op: str
    value: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    who: str
    op: str
    begun: float
    ended: float
    outcome: Kind
    sent: dict[str, Any]
    got: dict[str, Any]


class History:
    """Each `who` has one call open at a time."""

    def __init__(self, events: Sequence[Event] = ()) -> None:
        self.events = list(events)
        self.open = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def add(self, who: str, kind: Kind, op: str, **value: Any) -> None:
        self.events.append(Event(time.time(), who, kind, op, value))
        if kind is Kind.INVOKE:
            self.open += 1
            while self._waiting and self.open >= self._waiting[0][0]:
                _, future = self._waiting.pop(0)
                if not future.done():
                    future.set_result(None)
        elif kind is not Kind.NOTE:
            self.open -= 1

    def note(self, op: str, **value: Any) -> None:
        self.add("campaign", Kind.NOTE, op, **value)

    async def until_open(self, calls: int) -> None:
        """Returns at a moment when at least so many calls are in flight."""
        if self.open < calls:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((calls, future))
            await future

    def calls(self) -> list[Call]:
        begun: dict[str, Event] = {}
        calls = []
        for event in self.events:
            if event.kind is Kind.INVOKE:
                begun[event.who] = event
            elif event.kind is not Kind.NOTE:
                calls.append(_call(begun.pop(event.who), event))
        never = [_call(event, Event(float("inf"), event.who, Kind.UNKNOWN, event.op)) for event in begun.values()]
        return calls + never

    def notes(self, op: str) -> Iterator[Event]:
        return (event for event in self.events if event.kind is Kind.NOTE and event.op == op)

    def save(self, file: Path) -> None:
        file.write_text("".join(json.dumps(asdict(event)) + "\n" for event in self.events))

    @classmethod
    def load(cls, file: Path) -> "History":
        lines = map(json.loads, file.read_text().splitlines())
        return cls([Event(**{**line, "kind": Kind(line["kind"])}) for line in lines])


def _call(begun: Event, ended: Event) -> Call:
    return Call(begun.who, begun.op, begun.time, ended.time, ended.kind, begun.value, ended.value)


def in_flight(calls: Sequence[Call], moment: float) -> int:
    return sum(call.begun < moment < call.ended for call in calls)
