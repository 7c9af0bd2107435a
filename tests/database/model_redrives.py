"""Rules of the model test: redrives, which reprocess or purge what matches."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from fastpubsub.exceptions import AlreadyExists
from fastpubsub.models import NewRedrive
from fastpubsub.testing.store.cursor import Cursor
from fastpubsub.testing.store.judging import read_filter
from fastpubsub.testing.store.records import Redriven
from tests.database.model_rules import Rules
from tests.database.store import Keys, Row

RUNNING, ENDED = 2, 1
FILTERS = st.sampled_from(
    [None, None, None, "{}", '{"a": [1]}', '{"$attributes": {"a": ["x"]}}', '{"$message": [{"ordering_key": ["a"]}]}']
)
TIMES = st.sampled_from([None, None, None, None, -12, -1, 0, 5])
RATES = st.sampled_from([None, None, 1, 3])
LONG = 60_000
"""Milliseconds: that it judges for a time is tested elsewhere."""

SHOWN = """
    select redrive_key, action, reason, died_after, died_before, per_second, matched, done, state, next_position,
        stepped_at, created_at, case when state = 'done' then ended_at end, filter is not null
    from fastpubsub.list_redrives_2(%s, %s)
"""


class Redrives(Rules):
    def relay(self) -> None:
        raise NotImplementedError

    def bury(self, name: str) -> None:
        raise NotImplementedError

    def with_dead(self, data: st.DataObject) -> tuple[str, Cursor, Keys]:
        """A subscription that has dead letters, if any can."""
        found = [name for name in sorted(self.keys) if self.model.cursor(name).dead]
        name = data.draw(st.sampled_from(found or sorted(self.keys)))
        if not found or data.draw(st.booleans()):
            self.bury(name)
        return name, self.model.cursor(name), self.keys[name]

    def shift(self, seconds: int | None) -> datetime | None:
        return None if seconds is None else self.now + timedelta(seconds=seconds)

    @rule(
        data=st.data(),
        later=st.sampled_from([0, 1, 1, 1]),
        action=st.sampled_from(["reprocess", "reprocess", "purge"]),
        after=TIMES,
        before=TIMES,
        per_second=RATES,
        wanted=FILTERS,
        steps=st.integers(0, 2),
    )
    def begin_redrive(
        self,
        data: st.DataObject,
        later: int,
        action: str,
        after: int | None,
        before: int | None,
        per_second: int | None,
        wanted: str | None,
        steps: int,
    ) -> None:
        _, cursor, keys = self.with_dead(data)
        self.relay()
        self.now += timedelta(seconds=later)
        reasons = [None, None, None, "reason", *sorted({dead.reason for dead in cursor.dead.values()})]
        reason = data.draw(st.sampled_from(reasons))
        new = NewRedrive.model_validate(
            {
                "action": action,
                "reason": reason,
                "died_after": self.shift(after),
                "died_before": self.shift(before),
                "per_second": per_second,
                "filter": json.loads(wanted or "null"),
            }
        )
        given = (action, reason, new.died_after, new.died_before, per_second, RUNNING, ENDED, self.now, wanted, LONG)
        query = f"select redrive_key from fastpubsub.create_redrive_2(%s, %s, {'%s, ' * 8}%s::json, %s)"
        try:
            redrive = cursor.begin_redrive(0, new, read_filter(wanted), self.now, running=RUNNING, ended=ENDED)
        except AlreadyExists:
            with self.store.refused("FP409"):
                self.store.rows(query, *keys, *given)
            return
        redrive.key = self.store.value(query, *keys, *given)
        for _ in range(steps):
            self.now += timedelta(seconds=1)
            self.step(cursor, keys, redrive, 1, 5000)

    def has_redrives(self) -> bool:
        return any(cursor.redrives for cursor in self.model.cursors.values())

    def redrive(self, data: st.DataObject) -> tuple[Cursor, Keys, Redriven]:
        found = [(name, one) for name in sorted(self.keys) for one in self.model.cursor(name).redrives]
        name, redrive = data.draw(st.sampled_from(found))
        return self.model.cursor(name), self.keys[name], redrive

    @precondition(has_redrives)
    @rule(data=st.data(), limit=st.sampled_from([1, 2, 500]), scan=st.sampled_from([1, 3, 5000]))
    def step_redrive(self, data: st.DataObject, limit: int, scan: int) -> None:
        self.step(*self.redrive(data), limit, scan)

    def step(self, cursor: Cursor, keys: Keys, redrive: Redriven, limit: int, scan: int) -> None:
        query = "select moved, running, next_seconds from fastpubsub.step_redrive(%s, %s, %s, %s, %s, %s, %s)"
        moved, running, seconds = self.store.row(query, *keys, redrive.key, limit, scan, self.now, LONG)
        expected = cursor.step_redrive(redrive, limit, scan, self.now)
        assert (moved, running) == expected[:2]
        assert abs(seconds - expected[2]) < 1e-6

    @precondition(has_redrives)
    @rule(data=st.data())
    def cancel_redrive(self, data: st.DataObject) -> None:
        cursor, keys, redrive = self.redrive(data)
        assert self.store.value("select fastpubsub.cancel_redrive(%s, %s, %s)", *keys, redrive.key)
        cursor.cancel_redrive(redrive, self.now)

    def redrives_of(self, keys: Keys) -> list[Row]:
        return self.store.rows(SHOWN, *keys)


def shown(redrives: Sequence[Redriven]) -> list[Row]:
    """As they are stored, the newest first."""
    return [
        (
            one.key,
            one.wanted.action,
            one.wanted.reason,
            one.wanted.died_after,
            one.wanted.died_before,
            one.wanted.per_second,
            one.matched,
            one.done,
            one.state,
            one.next_position,
            one.stepped_at,
            one.created_at,
            one.ended_at if one.state == "done" else None,
            one.filter is not None,
        )
        for one in reversed(redrives)
    ]
