"""Schedules: each of their times fires once, and moves the schedule on in the same transaction."""

import json
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from tests.database import delayed
from tests.database.conftest import Background, OpenStore
from tests.database.schedules import (
    NEXT,
    SOON,
    Fired,
    create,
    delete,
    due,
    fire,
    fire_by_hand,
    get,
    inspect,
    listed,
    pause,
    update,
)
from tests.database.store import MICROSECOND, NOW, SECOND, Store, wait_until_blocked
from tests.database.usage import measure

LATER = NOW + timedelta(days=1)


def messages(store: Store, topic: int) -> list[tuple[str, dict[str, str], str | None]]:
    query = (
        "select payload::text, attributes, ordering_key from fastpubsub.messages where topic_key = %s order by position"
    )
    return [
        (payload, attributes and json.loads(attributes), key) for payload, attributes, key in store.rows(query, topic)
    ]


def times(store: Store, topic: int) -> list[str]:
    return [attributes["scheduled_at"] for _, attributes, _ in messages(store, topic)]


# firing


def test_it_is_due_at_its_time_and_moves_on_with_its_message(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic, attributes='{"a": "b"}', ordering_key="k")
    assert due(store, SOON - MICROSECOND) == []
    assert due(store, SOON) == [("topic", "tick", 1, SOON)]
    assert fire(store, topic) == Fired(1, 1, SOON)
    attributes = {"a": "b", "schedule_id": "tick", "scheduled_at": "2026-01-02T03:04:15Z"}
    assert messages(store, topic) == [('{"n": 1}', attributes, "k")]
    found = get(store, topic)
    assert (found.next_at, found.last_fired_at, found.last_position, found.fired) == (NEXT, SOON, 1, 1)
    assert due(store, SOON) == []


def test_the_same_time_fires_once(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic)
    assert [fire(store, topic).messages, fire(store, topic).messages] == [1, None]
    assert len(messages(store, topic)) == 1


def test_what_was_reckoned_from_other_settings_does_not_fire(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic)
    update(store, topic)
    assert fire(store, topic).messages is None
    assert fire(store, topic, revision=2).messages == 1
    assert [payload for payload, _, _ in messages(store, topic)] == ['{"n": 2}']


def test_several_times_fire_at_once_each_with_its_own(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic)
    assert fire(store, topic, times=[SOON, NEXT], next_at=LATER, now=LATER).messages == 2
    assert times(store, topic) == ["2026-01-02T03:04:15Z", "2026-01-02T03:04:25Z"]
    found = get(store, topic)
    assert (found.fired, found.last_position, found.last_fired_at) == (2, 2, LATER)


def test_times_that_are_given_up_are_counted_with_their_reason(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic)
    assert fire(store, topic, times=[], missed=3, problem="no").messages == 0
    found = get(store, topic)
    assert (found.fired, found.missed, found.problem, found.next_at, found.last_position) == (0, 3, "no", NEXT, None)
    assert inspect(store, SOON) == (1, 0, 1, 0)
    assert fire(store, topic, due_at=NEXT, times=[NEXT], next_at=LATER, now=NEXT).messages == 1
    assert (get(store, topic).problem, get(store, topic).missed) == (None, 3)
    assert messages(store, topic)[0][1]["schedule_id"] == "tick"


def test_by_hand_it_fires_now_and_moves_nothing(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic)
    assert fire_by_hand(store, topic, now=NOW).messages == 1
    assert times(store, topic) == ["2026-01-02T03:04:05Z"]
    found = get(store, topic)
    assert (found.next_at, found.revision, found.fired, found.last_position) == (SOON, 1, 1, 1)
    pause(store, topic)
    assert fire_by_hand(store, topic).messages == 1
    assert get(store, topic).next_at is None
    with store.refused("FP404"):
        fire_by_hand(store, topic, "nowhere")


def test_a_subscription_gets_it_like_any_message(store: Store) -> None:
    keys = store.create()
    create(store, keys.topic)
    fire(store, keys.topic)
    claimed = store.claim(keys, now=SOON)
    assert (claimed.positions, claimed.payloads, claimed.created_at) == ([1], ['{"n": 1}'], [SOON])


def test_the_schema_must_be_the_one_by_which_it_was_checked(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic)
    store.execute("select fastpubsub.update_topic('topic', null, false, '{}', true)")
    version = store.value("select schema_version from fastpubsub.get_schema(%s)", topic)
    with store.refused("FP428"):
        create(store, topic, "other")
    with store.refused("FP428"):
        update(store, topic)
    with store.refused("FP428"):
        fire(store, topic)
    assert get(store, topic).next_at == SOON
    assert fire(store, topic, times=[], missed=1).messages == 0
    assert fire(store, topic, due_at=NEXT, next_at=LATER, schema_version=version).messages == 1


# keeping them


def test_a_topic_has_each_id_once_and_not_too_many(store: Store) -> None:
    first, second = store.create_topic(), store.create_topic("other")
    for topic in (first, second):
        create(store, topic)
    with store.refused("FP409"):
        create(store, first)
    with store.refused("FP422"):
        create(store, first, "more", limit=1)
    with store.refused("FP404"):
        create(store, second + 1)
    assert [one.id for one in listed(store, first)] == ["tick"]


def test_they_are_listed_by_id(store: Store) -> None:
    topic = store.create_topic()
    for id_ in ("b", "a", "B"):
        create(store, topic, id_)
    assert [one.id for one in listed(store, topic)] == ["B", "a", "b"]
    assert [one.id for one in listed(store, topic, after="B")] == ["a", "b"]
    assert listed(store, topic, "c") == []
    with store.refused("FP404"):
        listed(store, topic + 1)


def test_a_change_keeps_the_time_unless_it_gives_another(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic)
    update(store, topic)
    assert (get(store, topic).next_at, get(store, topic).revision) == (SOON, 2)
    update(store, topic, revision=2, next_at=LATER)
    assert get(store, topic).next_at == LATER
    with store.refused("FP409"):
        update(store, topic, revision=2)
    with store.refused("FP404"):
        update(store, topic, "nowhere")


def test_a_paused_one_stays_so_until_it_is_resumed(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic)
    pause(store, topic)
    pause(store, topic)
    found = get(store, topic)
    assert (found.paused_at, found.next_at) == (NOW, None)
    assert due(store, LATER) == []
    assert inspect(store, LATER) == (0, 1, 0, 0)
    assert fire(store, topic).messages is None
    update(store, topic, revision=found.revision, next_at=SOON)
    assert get(store, topic).next_at is None
    pause(store, topic, resume_at=LATER)
    pause(store, topic, resume_at=LATER + SECOND)
    assert (get(store, topic).paused_at, get(store, topic).next_at) == (None, LATER)


def test_it_goes_with_its_topic(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic)
    store.delete_topic()
    assert due(store, LATER) == []
    assert inspect(store, LATER) == (0, 0, 0, 0)
    assert store.value("select count(*) from fastpubsub.schedules") == 0
    with store.refused("FP404"):
        fire(store, topic)


def test_deleting(store: Store) -> None:
    topic = store.create_topic()
    create(store, topic)
    delete(store, topic)
    assert listed(store, topic) == []
    assert fire(store, topic).messages is None
    with store.refused("FP404"):
        delete(store, topic)


# looking for them


def test_the_longest_overdue_comes_first(store: Store) -> None:
    topic = store.create_topic()
    for number, id_ in enumerate(("third", "second", "first")):
        create(store, topic, id_, next_at=SOON - number * SECOND)
    assert [row[1] for row in due(store, LATER)] == ["first", "second", "third"]
    assert [row[1] for row in due(store, LATER, limit=1)] == ["first"]
    assert [row[1] for row in due(store, SOON, look_back=1)] == ["second", "third"]
    assert inspect(store, SOON)[3] == 2


def test_whoever_looks_for_delayed_messages_hears_of_them(store: Store) -> None:
    topic = store.create_topic()
    query = "select schedule_seconds from fastpubsub.list_due_topics(30, %s, %s)"
    assert store.value(query, None, NOW) is None
    create(store, topic)
    assert store.value(query, None, NOW) == 10
    assert store.value(query, 60, SOON + 2 * SECOND) == -2
    assert store.value(query, 60, SOON + 61 * SECOND) is None
    assert store.value(query, None, SOON + 61 * SECOND) == -61
    assert delayed.due_topics(store) == ([], None)


# races


def test_a_time_fires_once_whoever_does_it(open_store: OpenStore, background: Background) -> None:
    first, second = open_store(), open_store()
    topic = first.create_topic()
    create(first, topic)
    with first.transaction():
        assert fire(first, topic).messages == 1
        waiting = background(fire, second, topic)
        wait_until_blocked(first, second)
    assert waiting.result().messages is None
    assert len(messages(first, topic)) == 1


def test_a_firing_that_is_rolled_back_is_done_by_the_next(open_store: OpenStore, background: Background) -> None:
    first, second = open_store(), open_store()
    topic = first.create_topic()
    create(first, topic)
    first.execute("begin")
    assert fire(first, topic).messages == 1
    waiting = background(fire, second, topic)
    wait_until_blocked(first, second)
    first.execute("rollback")
    assert waiting.result() == Fired(1, 1, SOON)
    assert get(first, topic).fired == 1


@pytest.mark.parametrize("way", ["pause", "update", "delete"])
def test_a_change_waits_for_the_firing_and_counts_it(open_store: OpenStore, background: Background, way: str) -> None:
    first, second = open_store(), open_store()
    topic = first.create_topic()
    create(first, topic)
    changes: dict[str, Callable[[Store, int], int]] = {"pause": pause, "update": update, "delete": delete}
    with first.transaction():
        fire(first, topic)
        waiting = background(changes[way], second, topic)
        wait_until_blocked(first, second)
    waiting.result()
    assert len(messages(first, topic)) == 1
    found = listed(first, topic)
    assert [(one.fired, one.next_at) for one in found] == {
        "pause": [(1, None)],
        "update": [(1, NEXT)],
        "delete": [],
    }[way]


def test_none_is_created_in_a_topic_that_is_being_deleted(open_store: OpenStore, background: Background) -> None:
    first, second = open_store(), open_store()
    topic = first.create_topic()
    with first.transaction():
        first.delete_topic()
        waiting = background(create, second, topic)
        wait_until_blocked(first, second)
    with pytest.raises(psycopg.Error) as refused:
        waiting.result()
    assert refused.value.sqlstate == "FP404"
    assert first.value("select count(*) from fastpubsub.schedules") == 0


# what it costs

MOVED = 5000
MAX_ENTRIES = 100


def test_nobody_walks_over_what_has_fired_while_a_snapshot_is_held(open_store: OpenStore) -> None:
    store, holding = open_store(), open_store()
    topic = store.create_topic()
    store.execute("alter table fastpubsub.schedules set (autovacuum_enabled = off)")
    create(store, topic, next_at=NOW)
    create(store, topic, "later", next_at=LATER)
    with holding.transaction():
        holding.execute("set transaction isolation level repeatable read")
        holding.execute("select count(*) from fastpubsub.schedules")
        assert store.value("select backend_xmin is not null from pg_stat_activity where pid = %s", holding.pid)
        store.execute(
            f"do $$ begin for i in 1..{MOVED} loop update fastpubsub.schedules"
            " set next_at = next_at + interval '1 second' where id = 'tick'; end loop; end $$"
        )
        now = NOW + MOVED * SECOND
        with store.transaction():
            (found,), looked = measure(store, lambda: due(store, now, look_back=60), ("schedules",))
            query = "select schedule_seconds from fastpubsub.list_due_topics(30, 60, %s)"
            seconds, looked_at = measure(store, lambda: store.value(query, now), ("schedules",))
    assert (found[1], seconds) == ("tick", 0)
    for usage in (looked, looked_at):
        assert usage.sequential == set()
        assert usage.entries <= MAX_ENTRIES
