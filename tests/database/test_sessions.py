"""Sessions cannot weaken what the procedures promise (invariant 12)."""

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from tests.database import delayed, refused, schedules
from tests.database.conftest import OpenStore
from tests.database.outbox import Relay, publish
from tests.database.store import NOW, SECOND, Id, Keys, Settings, Settles, Store

LATER = NOW + timedelta(days=1)

Call = Callable[[Store, Keys], object]

DURABLE: dict[str, Call] = {
    "publish": lambda store, keys: store.publish(keys.topic, ["1"]),
    "publish once": lambda store, keys: store.row(
        "select fastpubsub.publish_messages_once(%s, '{1}'::json[], null, '{1}', '{c}', '{k}', array[''::bytea], 60)",
        keys.topic,
    ),
    "publish to several topics": lambda store, keys: store.row(
        "select fastpubsub.publish_to_topics(array[%s], '{0}', '{0}', '{1}', '{1}'::json[])", keys.topic
    ),
    "publish later": lambda store, keys: delayed.delay(store, keys.topic, 5),
    "publish what is due": lambda store, keys: delayed.publish_due(store, keys.topic),
    "move a delayed message": lambda store, keys: delayed.move(store, keys.topic, 1, seconds=5),
    "cancel a delayed message": lambda store, keys: delayed.cancel(store, keys.topic, 1),
    "release delayed messages": lambda store, keys: delayed.release(store, keys.topic),
    "create a schedule": lambda store, keys: schedules.create(store, keys.topic, "new"),
    "update a schedule": lambda store, keys: (schedules.create(store, keys.topic), schedules.update(store, keys.topic)),
    "pause a schedule": lambda store, keys: (schedules.create(store, keys.topic), schedules.pause(store, keys.topic)),
    "delete a schedule": lambda store, keys: (schedules.create(store, keys.topic), schedules.delete(store, keys.topic)),
    "fire a schedule": lambda store, keys: (schedules.create(store, keys.topic), schedules.fire(store, keys.topic)),
    "ack": lambda store, keys: store.ack(keys, store.leased(keys)),
    "nack": lambda store, keys: store.nack(keys, store.leased(keys)),
    "reject": lambda store, keys: store.reject(keys, store.leased(keys)),
    "extend": lambda store, keys: store.extend(keys, store.leased(keys), 60),
    "give back": lambda store, keys: store.give_back(keys, [1], store.leased(keys)[0].token),
    "settle and claim": lambda store, keys: store.settle_and_claim(keys, Settles(acks=(store.leased(keys), None))),
    "release": lambda store, keys: store.release(keys, now=LATER),
    "reprocess": lambda store, keys: store.reprocess(keys, [Id(1, None, NOW)]),
    "purge": lambda store, keys: store.purge(keys, [Id(1, None, NOW)]),
    "seek": lambda store, keys: store.seek(keys, "earliest"),
    "pause": lambda store, keys: store.pause(),
    "purge all": lambda store, keys: store.purge_all(keys),
    "publish what was refused": lambda store, keys: refused.publish(store, keys.topic, 1),
    "purge what was refused": lambda store, keys: refused.purge(store, keys.topic, 1),
    "relay": lambda store, keys: Relay(store).move(keys.topic, [1], [1]),
    "create topic": lambda store, keys: store.create_topic("new"),
    "update topic": lambda store, keys: store.execute("select fastpubsub.update_topic('topic', 1)"),
    "delete topic": lambda store, keys: store.delete_topic(),
    "create subscription": lambda store, keys: store.create_subscription("new", settings=Settings(start="earliest")),
    "fork subscription": lambda store, keys: store.fork_subscription("new"),
    "update subscription": lambda store, keys: store.update_subscription("subscription", ack_deadline_seconds=1),
    "delete subscription": lambda store, keys: store.delete_subscription(),
}
# A crash may lose them: then they are done again.
REPEATABLE: dict[str, Call] = {
    "claim": lambda store, keys: store.claim(keys, 1),
    "trim messages": lambda store, keys: store.trim(keys.topic),
    "trim claims": lambda store, keys: store.trim_claims(keys.topic),
    "empty purges": lambda store, keys: store.empty_purges(),
    "trim what was refused": lambda store, _: refused.trim(store),
    "count what is settled": lambda store, _: store.rows("select * from fastpubsub.take_settled(array[1], array[1])"),
    "hold a job": lambda store, _: store.execute("select fastpubsub.hold_job('relay_messages', 'tests')"),
}


@pytest.fixture
def keys(store: Store) -> Keys:
    """One message leased, one ahead."""
    keys = store.create()
    store.publish(keys.topic, ["1", "2"])
    store.claim(keys, 1)
    store.execute("set local lock_timeout = 0")
    return keys


@pytest.mark.parametrize("call", DURABLE.values(), ids=DURABLE)
@pytest.mark.parametrize(
    ("session", "during"), [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply",) * 2]
)
def test_an_answer_means_it_is_on_disk(store: Store, keys: Keys, call: Call, session: str, during: str) -> None:
    """The setting must still hold at the end of the call's transaction, which is when it counts."""
    store.execute(f"set local synchronous_commit = {session}")
    call(store, keys)
    assert store.value("show synchronous_commit") == during
    assert store.value("show lock_timeout") == "2s"


@pytest.mark.parametrize("call", REPEATABLE.values(), ids=REPEATABLE)
def test_what_can_be_repeated_does_not_wait_for_the_disk(store: Store, keys: Keys, call: Call) -> None:
    store.execute("set local synchronous_commit = on")
    call(store, keys)
    assert store.value("show synchronous_commit") == "off"
    assert store.value("show lock_timeout") == "2s"


def test_the_session_gets_its_settings_back(open_store: OpenStore) -> None:
    store = open_store()
    store.execute("set synchronous_commit = off")
    store.execute("set lock_timeout = '7s'")
    keys = store.create()
    store.publish(keys.topic, ["1"])
    store.claim(keys)
    assert store.row("select current_setting('synchronous_commit'), current_setting('lock_timeout')") == ("off", "7s")


@pytest.mark.parametrize("name", ["publish", "claim", "nack", "seek", "delete topic", "delete subscription"])
def test_nobody_waits_for_a_lock_for_ever(open_store: OpenStore, name: str) -> None:
    holding, store = open_store(), open_store()
    keys = store.create()
    store.publish(keys.topic, ["1", "2"])
    store.claim(keys, 1)
    store.execute("set lock_timeout = 0")
    store.execute("set fastpubsub.lock_timeout = '30ms'")
    with holding.transaction():
        holding.execute("select from fastpubsub.heads for update")
        holding.execute("select from fastpubsub.cursors for update")
        with store.refused("55P03"):
            (DURABLE | REPEATABLE)[name](store, keys)


def test_a_publisher_waits_for_the_other_as_long_as_it_was_told(open_store: OpenStore) -> None:
    """An empty setting counts as none."""
    store = open_store()
    keys = store.create()
    for setting, effective in (("", "2s"), ("1500ms", "1500ms"), ("10s", "10s")):
        store.execute(f"set fastpubsub.lock_timeout = '{setting}'")
        with store.transaction():
            store.publish(keys.topic, ["1"])
            assert store.value("show lock_timeout") == effective


HOSTILE = """
    create schema hostile;
    create table hostile.messages (position bigint);
    create table hostile.leases (position bigint);
    create table hostile.cursors (topic_key bigint);
    create domain hostile.jsonpath as text check (false);
    create function hostile.fail() returns text language plpgsql as $$ begin raise 'hostile'; end $$;
    create function hostile.clock_timestamp() returns timestamptz
        language sql as $$ select hostile.fail()::timestamptz $$;
    create function hostile.cardinality(bigint[]) returns integer language sql as $$ select hostile.fail()::integer $$;
    create function hostile.gen_random_uuid() returns uuid language sql as $$ select hostile.fail()::uuid $$;
    create function hostile.current_setting(text) returns text language sql as $$ select hostile.fail() $$;
    create function hostile.current_setting(text, boolean) returns text language sql as $$ select hostile.fail() $$;
    create function hostile.set_config(text, text, boolean) returns text language sql as $$ select hostile.fail() $$;
    create function hostile.date_trunc(text, timestamptz) returns timestamptz
        language sql as $$ select hostile.fail()::timestamptz $$;
    create function hostile.pg_column_size(json) returns integer language sql as $$ select hostile.fail()::integer $$;
    create function hostile.width_bucket(bigint, bigint[]) returns integer
        language sql as $$ select hostile.fail()::integer $$;
    create function hostile.json_typeof(json) returns text language sql as $$ select hostile.fail() $$;
    create function hostile.never(bigint, bigint) returns boolean language sql as $$ select false $$;
    create function hostile.never(text, text) returns boolean language sql as $$ select false $$;
    create function hostile.never(timestamptz, timestamptz) returns boolean language sql as $$ select false $$;
    create function hostile.never(jsonb, pg_catalog.jsonpath) returns boolean language sql as $$ select false $$;
    create function hostile.zero(bigint, bigint) returns bigint language sql as $$ select 0::bigint $$;
    create operator hostile.= (function = hostile.never, leftarg = bigint, rightarg = bigint);
    create operator hostile.> (function = hostile.never, leftarg = bigint, rightarg = bigint);
    create operator hostile.<= (function = hostile.never, leftarg = bigint, rightarg = bigint);
    create operator hostile.+ (function = hostile.zero, leftarg = bigint, rightarg = bigint);
    create operator hostile.= (function = hostile.never, leftarg = text, rightarg = text);
    create operator hostile.<= (function = hostile.never, leftarg = timestamptz, rightarg = timestamptz);
    create operator hostile.> (function = hostile.never, leftarg = timestamptz, rightarg = timestamptz);
    create operator hostile.@? (function = hostile.never, leftarg = jsonb, rightarg = pg_catalog.jsonpath);
"""


def life(store: Store) -> list[object]:
    """What the calls of a whole life answer."""
    keys = store.create(filter='{"a": [1]}', ack_deadline=60, max_attempts=2, backoff_min=1)
    first = store.publish(keys.topic, ['{"a": 1}', '{"a": 2}', '{"a": 1}', '{"a": 1}', '{"a": 1}'])
    claimed = store.claim(keys)
    seen: list[object] = [first, claimed.positions, claimed.attempts, claimed.expires_at, claimed.scanned]
    one, two, three, four = claimed.ids
    seen += [store.ack(keys, [one, one.bare]), store.nack(keys, [two]), store.reject(keys, [three], ["bad"])]
    seen += [store.extend(keys, [four, one], 30), store.metrics(keys), store.dead_letters(keys)]
    seen += [store.expired(now=LATER)[0][2:], store.release(keys, now=NOW + 30 * SECOND)]
    seen += [store.reprocess(keys, [three]), store.claim(keys, now=LATER).attempts]
    store.seek(keys, "time", time=NOW)
    again = store.claim(keys, 2)
    seen += [again.positions, store.give_back(keys, again.positions, again.token), store.metrics(keys)]
    store.update_subscription("subscription", change_filter=True, filter=None)
    seen += [store.claim(keys, now=LATER).positions, store.purge(keys, [three]), store.metrics(keys)]
    seen += [store.trim(keys.topic), store.trim_claims(keys.topic)]
    publish(store, r'{"a": "\ud83d\ude00\\", "b": 1e1000}', '{"k": "v"}')
    with store.refused("FP422"):
        publish(store, '{"a": 1e1001}')
    seen += [Relay(store).everything()]
    publish(store, '{"a": 3}')
    seen += [refused.refuse_all(store, keys.topic), refused.listed(store, keys.topic)[0].reason, refused.count(store)]
    (key,) = [one.key for one in refused.listed(store, keys.topic)]
    seen += [
        refused.publish(store, keys.topic, key) == [key],
        refused.refuse_all(store, keys.topic),
        refused.trim(store),
    ]
    (key,) = [one.key for one in refused.listed(store, keys.topic)]
    seen += [refused.purge(store, keys.topic, key) == [key]]
    later, last = delayed.delay(store, keys.topic, 5, 6)
    seen += [
        delayed.due_topics(store),
        delayed.move(store, keys.topic, later, seconds=7),
        [waiting.payload for waiting in delayed.listed(store, keys.topic)],
    ]
    seen += [delayed.publish_due(store, keys.topic, now=LATER), delayed.get(store, keys.topic, last)]
    seen += [delayed.cancel(store, keys.topic, last), delayed.inspect(store), delayed.release(store, keys.topic)]
    schedules.create(store, keys.topic)
    schedules.update(store, keys.topic)
    schedules.pause(store, keys.topic)
    schedules.pause(store, keys.topic, resume_at=schedules.SOON)
    seen += [schedules.due(store, LATER), schedules.listed(store, keys.topic), schedules.inspect(store, LATER)]
    seen += [schedules.fire(store, keys.topic, revision=4, now=LATER)[:2], schedules.get(store, keys.topic).fired]
    schedules.delete(store, keys.topic)
    store.delete_subscription()
    seen += [store.trim(keys.topic)]
    store.delete_topic()
    while seen[-1] is not None:
        seen.append(store.empty_purges())
    return seen


@pytest.mark.parametrize("path", ["hostile", "hostile, pg_catalog", ""])
def test_names_mean_the_same_whatever_the_search_path(open_store: OpenStore, path: str) -> None:
    store = open_store()
    store.execute("create table public.messages (position bigint)")
    expected = life(store)
    for statement in HOSTILE.split(";\n")[:-1]:
        store.execute(statement)
    hostile = open_store()
    hostile.execute(f"set search_path = {path}" if path else "set search_path = ''")
    if "pg_catalog" in path:
        with pytest.raises(psycopg.errors.RaiseException):
            hostile.value("select clock_timestamp()")
    assert life(hostile) == expected


# Called by other procedures only, and so under their search path; setting it again would cost time on each call.
INTERNAL = {
    "check_on_dead_letter",
    "check_on_full",
    "fullest_subscription",
    "has_room",
    "limit_backlog",
    "require_room",
    "failures_of",
    "forget_failures",
    "forget_old_failures",
    "message_id",
    "publish_dead_letters",
    "require_dead_letter_topic",
    "begin_call",
    "begin_subscription",
    "but_values",
    "check_attributes",
    "check_payload",
    "compile_filter",
    "filter_condition",
    "filter_pattern",
    "first_position",
    "is_deeper",
    "is_found",
    "is_jsonb",
    "kept_log",
    "key_turns",
    "last_position",
    "lock_job",
    "lock_schedule",
    "lock_topic",
    "lock_subscription",
    "is_about_message",
    "matching_positions",
    "message_created_at",
    "move_cursor",
    "name_turns",
    "name_subscription",
    "network_pattern",
    "position_before",
    "refuse_claim",
    "requeue_messages",
    "scan_log",
    "schema_version",
    "scopes_cover",
    "take_due_retries",
    "take_leases",
    "unsettled_position",
    "value_condition",
    "pass_busy_keys",
    "passes_filter",
    "read_log",
    "read_matching_log",
    "cut_leases",
    "lease_runs",
    "cursor_position",
    "count_ahead",
    "end_deliveries",
    "end_hold",
    "is_holding",
    "is_paused",
    "room_in_flight",
    "pass_expired",
    "expire_messages",
    "room_to_claim",
    "bucket_messages",
    "bucket_refills_at",
    "rate_reached",
    "expires_at",
    "limit_reached",
    "sought_position",
    "deciding_field",
    "draw_due_at",
    "delayed_floor",
    "due_time",
    "mark_floor",
    "publish_and_delay",
    "remember_filter",
    "remember_seek",
    "is_being_settled",
    "transaction_lock",
    "claim_in_order",
    "claim_stretch",
    "continue_turn",
    "end_acked",
    "end_leases",
    "end_turns",
    "end_whole_leases",
    "follow_busy",
    "judge_stretch",
    "lease_turns",
    "read_claimed",
    "take_put_aside",
    "take_stretch",
    "count_put_aside",
    "free_keys",
    "park_after",
    "put_aside",
    "read_log_in_order",
    "store_keys",
    "take_turns",
    "fair_key",
    "pass_fairly",
    "read_log_fairly",
    "take_fairly",
    "take_in_line",
    "take_share",
}


def test_every_procedure_that_is_called_from_outside_sets_its_search_path(store: Store) -> None:
    query = """
        select proname from pg_proc where pronamespace = 'fastpubsub'::regnamespace
        and not ('search_path=pg_catalog, pg_temp' = any(coalesce(proconfig, '{}')))
    """
    assert {name for (name,) in store.rows(query)} == INTERNAL
