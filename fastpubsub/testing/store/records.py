"""What the store keeps of messages and their deliveries."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from fastpubsub.models import NewRedrive, Schedule
from fastpubsub.timetables import Timetable

PUT_ASIDE = "put aside"
"""Why a key of an ordered subscription is due: nobody had its next message yet."""

FOREVER = datetime.max.replace(tzinfo=UTC)
"""When a key is due that a dead letter holds."""


class Stored(NamedTuple):
    """Of a delayed message `ttl_seconds` counts once it has come."""

    payload: bytes
    attributes: bytes | None
    created_at: datetime
    ordering_key: str | None = None
    expires_at: datetime | None = None
    ttl_seconds: int | None = None

    @property
    def size(self) -> int:
        """Counts the bytes as PostgreSQL does for a short text, which has one byte for its length."""
        return len(self.payload) + 1 + (len(self.attributes) + 1 if self.attributes else 0)


@dataclass(slots=True)
class Lease:
    token: int
    expires_at: datetime
    attempts: int
    leased_at: datetime
    consumer_id: str
    turn: int | None = None


class WaitingMessage(NamedTuple):
    due_at: datetime
    position: int
    attempts: int
    reason: str
    turn: int | None = None


class Failed(NamedTuple):
    """A delivery that failed."""

    failed_at: datetime
    delivery_attempt: int
    cause: str
    reason: str | None
    consumer_id: str


class Dead(NamedTuple):
    message: Stored
    died_at: datetime
    attempts: int
    reason: str


class Claimed(NamedTuple):
    position: int
    message: Stored
    lease: Lease


class Delayed(NamedTuple):
    """A message that comes later, with its number."""

    due_at: datetime
    key: int
    message: Stored


class RefusedCopy(NamedTuple):
    """Of a dead letter, `created_at` when it was refused, and why."""

    message: Stored
    reason: str


class Fired(NamedTuple):
    """Where a delayed message came."""

    due_at: datetime
    position: int


@dataclass(slots=True)
class Repeated:
    """A schedule, without its message, which is published as it was written."""

    schedule: Schedule
    message: Stored
    timetable: Timetable


@dataclass(slots=True)
class Redriven:
    """A redrive: the dead letters before `next_position` it has looked at."""

    key: int
    wanted: NewRedrive
    filter: dict[str, Any] | None
    created_at: datetime
    stepped_at: datetime
    matched: int = 0
    done: int = 0
    state: Literal["running", "done", "cancelled"] = "running"
    next_position: int = 0
    ended_at: datetime | None = None


class Passed(NamedTuple):
    """How a position came behind the cursor, whether a filter was in force then, and whether a seek came later."""

    state: str
    is_filtered: bool = False
    is_sought: bool = False
