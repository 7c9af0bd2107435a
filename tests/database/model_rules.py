"""Rules of the model test: schedules, and transactions that settle and publish."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from fastpubsub.message_ids import Target
from fastpubsub.models import Schedule
from fastpubsub.models.schedules import CatchUp
from fastpubsub.payloads import Expiry
from fastpubsub.services.firing import Due, plan_of
from fastpubsub.testing.store import store as memory
from fastpubsub.testing.store.cursor import Cursor
from fastpubsub.testing.store.log import Log
from fastpubsub.testing.store.records import Repeated, Stored
from fastpubsub.timetables import Timetable
from tests.database import schedules
from tests.database.store import Id, Keys, Store
from tests.database.test_settlements import ack_ids

PAYLOADS = st.sampled_from(
    ['{"a": 1}', '{"a": 1.0, "b": "x"}', '{"a": 2, "b": true}', '{"a": [1], "b": "x"}', '{"b": "x"}', "{}"]
)
PLAIN = ['{"a": 1, "b": "x"}', '{"a": 1, "b": true}']
"""What most filters let pass."""

KEYS = st.sampled_from([None, "a", "a", "b"])
ATTRIBUTES = st.sampled_from([None, '{"a": "x"}    ', '{"a": "x"}    ', '{"a": "y"}    ', '{"b": "x"}    '])
"""As long as PostgreSQL counts them."""

TTLS = st.sampled_from([None, None, 1, 6, 20])
NAMES = st.sampled_from(["tick", "tock"])
CATCH_UP: st.SearchStrategy[CatchUp] = st.sampled_from(["once", "all", "none"])


def targets(ids: Sequence[Id]) -> list[Target]:
    return [Target(place, *one) for place, one in enumerate(ids)]


class Rules(RuleBasedStateMachine):
    """What the rules of a part work on."""

    store: Store
    model: memory.Store
    log: Log
    topic: int
    now: datetime
    keys: dict[str, Keys]

    def subscription(self, data: st.DataObject) -> tuple[str, Cursor, Keys]:
        raise NotImplementedError

    def ids(self, data: st.DataObject, name: str, cursor: Cursor) -> list[Id]:
        raise NotImplementedError

    def claimed_now(self, name: str) -> list[Id]:
        raise NotImplementedError

    def publish(self, payloads: list[str], late: int, keys: Sequence[str | None]) -> None:
        raise NotImplementedError


class Scheduling(Rules):
    @rule(id_=NAMES, payload=PAYLOADS, key=KEYS, seconds=st.sampled_from([5, 12]), catch_up=CATCH_UP)
    def schedule(self, id_: str, payload: str, key: str | None, seconds: int, catch_up: CatchUp) -> None:
        timetable = Timetable(None, None, seconds)
        first = timetable.after(self.now, self.now)
        assert first is not None
        create = partial(schedules.create, self.store, self.topic, id_, next_at=first, now=self.now)
        if id_ in self.log.schedules:
            with self.store.refused("FP409"):
                create()
            return
        created_at = create(payload=payload, ordering_key=key)
        schedule = Schedule(
            id=id_,
            topic_id="topic",
            interval_seconds=seconds,
            catch_up=catch_up,
            created_at=created_at,
            next_at=first,
            fired=0,
            missed=0,
        )
        message = Stored(payload.encode(), None, self.now, key)
        self.log.schedules[id_] = Repeated(schedule, message, timetable)

    @precondition(lambda self: self.log.schedules)
    @rule(max_overdue=st.sampled_from([10, 3600]), seconds=st.sampled_from([0, 5, 12]))
    def fire_due(self, max_overdue: int, seconds: int) -> None:
        """As a server does; a process that is late finds that it was done."""
        self.now += timedelta(seconds=seconds)
        for topic_id, id_, revision, next_at in schedules.due(self.store, self.now):
            one = self.log.schedules[id_]
            there = one.schedule
            settings = (there.interval_seconds, there.catch_up, next_at, self.now)
            due = Due(self.topic, topic_id, id_, revision, one.message.payload, None, None, *settings)
            plan = plan_of(due, timedelta(seconds=max_overdue))
            fire = partial(schedules.fire, self.store, self.topic, id_, revision=revision, due_at=next_at, now=self.now)
            fired = [fire(times=plan.times, missed=plan.missed, next_at=plan.next_at).messages for _ in range(2)]
            assert fired == [len(plan.times), None]
            for time in plan.times:
                self.fire(one, time)
            missed = one.schedule.missed + plan.missed
            one.schedule = one.schedule.model_copy(update={"missed": missed, "next_at": plan.next_at})

    def fire(self, one: Repeated, time: datetime) -> None:
        """Padded to the size that the attributes have in PostgreSQL, which counts it."""
        self.log.fire(one, time, self.now)
        query = (
            "select pg_column_size(attributes) from fastpubsub.messages where topic_key = %s and attributes is not null"
        )
        message = self.log.messages[self.log.last]
        size = self.store.value(f"{query} and position = %s", self.topic, self.log.last)
        padded = (message.attributes or b"").ljust(size - 1)
        self.log.messages[self.log.last] = message._replace(attributes=padded)

    @precondition(lambda self: self.log.schedules)
    @rule(data=st.data())
    def fire_by_hand(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.log.schedules)))
        assert schedules.fire_by_hand(self.store, self.topic, id_, now=self.now).messages == 1
        self.fire(self.log.schedules[id_], self.now)

    @precondition(lambda self: self.log.schedules)
    @rule(data=st.data(), resume=st.booleans())
    def pause_schedule(self, data: st.DataObject, resume: bool) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.log.schedules)))
        one = self.log.schedules[id_]
        next_at = one.timetable.after(self.now, self.now) if resume else None
        schedules.pause(self.store, self.topic, id_, resume_at=next_at)
        changed = {"is_paused": not resume, "next_at": (one.schedule.next_at or next_at) if resume else None}
        one.schedule = one.schedule.model_copy(update=changed)

    @precondition(lambda self: self.log.schedules)
    @rule(data=st.data())
    def delete_schedule(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.log.schedules)))
        schedules.delete(self.store, self.topic, id_)
        del self.log.schedules[id_]


class Transacting(Rules):
    @rule(
        data=st.data(),
        payloads=st.lists(PAYLOADS, max_size=3),
        key=KEYS,
        ttl=TTLS,
        is_fresh=st.booleans(),
        is_killed=st.sampled_from([False, False, False, True]),
    )
    def transaction(
        self,
        data: st.DataObject,
        payloads: list[str],
        key: str | None,
        ttl: int | None,
        is_fresh: bool,
        is_killed: bool,
    ) -> None:
        """Acks and publishes together. Its time is that of PostgreSQL, which matters to none of what it does here."""
        found = [one for one in sorted(self.keys) if not self.model.cursor(one).subscription.ordered]
        if not found:
            return
        name = data.draw(st.sampled_from(found))
        cursor = self.model.cursor(name)
        if is_fresh:
            self.publish(PLAIN, 0, [key] * len(PLAIN))
            ids = self.claimed_now(name)
        else:
            ids = [one for one in self.ids(data, name, cursor) if one.token is not None and one.created_at is not None]
            ids = list(dict.fromkeys(ids))
        run = partial(self.run_transaction, name, ids, payloads, key, ttl)
        if is_killed:
            with self.store.undone(), suppress(psycopg.Error):
                run()
        elif ids and all(map(cursor.holds, targets(ids))):
            run()
            self.store.execute("set constraints all immediate")
            cursor.ack(targets(ids), self.now)
            self.relay()
            texts = [one.encode() for one in payloads]
            self.log.publish(texts, [None] * len(texts), self.now, [key] * len(texts), [Expiry(None, ttl)] * len(texts))
        elif ids:
            with self.store.refused("FP410"):
                run()

    def run_transaction(
        self, name: str, ids: Sequence[Id], payloads: list[str], key: str | None, ttl: int | None
    ) -> None:
        count = len(payloads)
        self.store.execute(
            "select fastpubsub.run_transaction(%s, '{ack}', %s, %s, array[null::int], array[null::text], %s,"
            " %s::json[], array_fill(null::jsonb, array[%s]), %s, null, null, %s)",
            [name],
            [len(ids)],
            ack_ids(self.keys[name], ids),
            ["topic"] * count,
            payloads,
            count,
            [key] * count,
            [ttl] * count,
        )

    def relay(self) -> None:
        """Publishes what is in the outbox, in its order."""
        query = """
            select topic_key, array_agg(transaction_id::text::bigint order by transaction_id, ordinal),
                array_agg(ordinal order by transaction_id, ordinal)
            from fastpubsub.outbox where topic_key <> 0 group by topic_key
        """
        for topic, transactions, ordinals in self.store.rows(query):
            relay = "select moved from fastpubsub.relay_messages_2(%s, %s::bigint[], %s::bigint[], p_now => %s)"
            assert self.store.value(relay, topic, transactions, ordinals, self.now) == len(ordinals)
