"""Redrives: jobs that reprocess or purge the dead letters that match."""

import sys
from datetime import datetime, timedelta
from math import floor

from fastpubsub.exceptions import AlreadyExists
from fastpubsub.message_ids import Target
from fastpubsub.models import NewRedrive
from fastpubsub.testing.store.dead_letters import DeadLetters
from fastpubsub.testing.store.judging import Filter, passes
from fastpubsub.testing.store.records import Dead, Redriven

RUNNING = 10
ENDED = 100
"""Of a subscription: redrives that run, and that are remembered."""


class Redriving(DeadLetters):
    __slots__ = ()

    def begin_redrive(
        self,
        key: int,
        new: NewRedrive,
        wanted: Filter | None,
        now: datetime,
        *,
        running: int = RUNNING,
        ended: int = ENDED,
    ) -> Redriven:
        """Of what has died before now; `running` others at most, and so many that have ended are remembered."""
        before = min(new.died_before or now, now)
        redrive = Redriven(key, new.model_copy(update={"died_before": before}), wanted, now, now)
        redrive.matched = sum(self._is_meant(redrive, dead) for dead in self.dead.values())
        if sum(one.state == "running" for one in self.redrives) >= running:
            raise AlreadyExists(f"{running} redrives of the subscription are running: wait for one, or cancel it")
        over = [one for one in self.redrives if one.state != "running"][::-1][ended:]
        self.redrives = [*(one for one in self.redrives if one not in over), redrive]
        return redrive

    def step_redrive(self, redrive: Redriven, limit: int, scan: int, now: datetime) -> tuple[int, bool, float]:
        """How many it moved, whether it has to go on, and the seconds until its rate allows more."""
        if redrive.state != "running":
            return 0, False, 0.0
        rate, seconds = redrive.wanted.per_second, 0.0
        if rate is not None:
            seconds = min(1.0, max(0.0, (now - redrive.stepped_at).total_seconds()))
            limit = min(limit, floor(seconds * rate + 1e-6))
            if limit == 0:
                return 0, True, 1 / rate - seconds
        done = redrive.done
        found = self.go_on_with(redrive, now, limit, scan)
        spent = found / rate if rate else 0.0
        redrive.stepped_at = now - timedelta(seconds=seconds - spent)
        left = max(0.0, 1 / rate - seconds + spent) if rate and spent else 0.0
        is_running = redrive.state == "running"
        return redrive.done - done, is_running, left if is_running else 0.0

    def go_on_with(self, redrive: Redriven, now: datetime, limit: int = sys.maxsize, scan: int = sys.maxsize) -> int:
        """Looks at so many dead letters, and moves so many of those that match: how many it found."""
        found: list[Target] = []
        looked, is_cut = 0, False
        for position, dead in sorted(self.dead.items()):
            if position < redrive.next_position:
                continue
            looked += 1
            redrive.next_position = position + 1
            if self._is_meant(redrive, dead):
                found.append(Target(len(found), position, None, dead.message.created_at))
            is_cut = looked >= scan or len(found) >= limit
            if is_cut:
                break
        if not is_cut:
            redrive.state, redrive.ended_at = "done", now
        move = self.purge if redrive.wanted.action == "purge" else self.reprocess
        redrive.done += len(move(found, now))
        return len(found)

    def cancel_redrive(self, redrive: Redriven, now: datetime) -> None:
        if redrive.state == "running":
            redrive.state, redrive.ended_at = "cancelled", now

    def _is_meant(self, redrive: Redriven, dead: Dead) -> bool:
        return fits(redrive.wanted, dead) and passes(redrive.filter, dead.message)


def fits(wanted: NewRedrive, dead: Dead) -> bool:
    return (
        (wanted.reason is None or dead.reason == wanted.reason)
        and (wanted.died_after is None or dead.died_at >= wanted.died_after)
        and (wanted.died_before is None or dead.died_at < wanted.died_before)
    )
