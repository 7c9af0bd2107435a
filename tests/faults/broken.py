"""The server with a defect, which the campaign has to find: `python -m tests.faults.broken <defect> server`."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from fastpubsub import main
from fastpubsub.services.publishing import Publishing
from fastpubsub.services.settling import Settling

LATE_SECONDS = 0.3
JUMP_SECONDS = 4.0
_tasks: set[asyncio.Task[Any]] = set()


def answers_before_the_commit() -> None:
    publish = Publishing.publish

    async def publish_later(self: Publishing, *arguments: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(LATE_SECONDS)
            await publish(self, *arguments)

        task = asyncio.create_task(later())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    Publishing.publish = publish_later  # type: ignore[method-assign, assignment]


def settles_without_a_look_at_the_lease() -> None:
    """An ack_id counts like a message id."""
    settle = Settling.settle
    length = len("00000000-0000-0000-0000-000000000000")

    async def settle_by_id(self: Settling, kind: Any, subscription_id: str, ids: list[str], *others: Any) -> Any:
        return await settle(self, kind, subscription_id, [id_[:length] for id_ in ids], *others)

    Settling.settle = settle_by_id  # type: ignore[method-assign, assignment]


DEFECTS: dict[str, Callable[[], None]] = {
    "answers-before-the-commit": answers_before_the_commit,
    "settles-without-a-look-at-the-lease": settles_without_a_look_at_the_lease,
}


def shift_clock(hours: float) -> None:
    """Wrong by so much, and after a while by as much the other way."""
    right, started = time.time, time.monotonic()
    time.time = lambda: right() + hours * 3600 * (1 if time.monotonic() < started + JUMP_SECONDS else -1)


if __name__ == "__main__":
    name, _, value = sys.argv.pop(1).partition(":")
    if name == "clock":
        shift_clock(float(value))
    else:
        DEFECTS[name]()
    main.main()
