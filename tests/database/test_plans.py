"""Hot and background statements look up keys, whatever the statistics say, and walk over no rows that others deleted.

A snapshot is held, so no dead row can be cleaned up, and statistics are wrong on purpose, both ways.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tests.database.store import GONE, NOW, SETTLED, STALE, Id, Keys, Settings, Store, connect
from tests.database.usage import HOT, analyse, keep_autovacuum_away, measure
from tests.harness import Databases, libpq

MESSAGES = 30_000
TRIMMED = 10_000
DEAD = 20_000
LIVE_EVERY = 100
AN_HOUR_AGO = NOW - timedelta(hours=1)
FLOOR = NOW - timedelta(minutes=10)
LATER = NOW + timedelta(minutes=10)
CALLS = 8
# A walk over what was deleted would look at tens of thousands. A lease can begin up to 99 positions before what it
# holds, so an id that is gone may cost a hundred.
MAX_ENTRIES = 1500
MAX_BLOCKS = 800
LOOK_BACK = 30.0
# In an ordered subscription: of ten messages one has one of these keys, and the others one of their own.
KEYS = 20
ORDERED = 12_000
ORDERED_CURSOR = 8000
TURNS = 6000
STUCK = 600
READ = "select * from fastpubsub.read_messages_2(%s, %s, %s, 1000000)"


class Worn:
    """A database in which much was deleted while somebody held a snapshot."""

    def __init__(self, store: Store, keys: Keys, in_order: Keys, stuck: Keys) -> None:
        self.store = store
        self.keys = keys
        self.drained = store.create_subscription("drained")
        self.other = store.create_topic("other")
        self.in_order = in_order
        self.stuck = stuck
        self.live = [lease.position for lease in store.leases(keys)]

    def leased(self, call: int, count: int = 10) -> list[Id]:
        """Far from each other."""
        positions = self.live[call * count : (call + 1) * count]
        return [Id(position, position, None) for position in positions]


def fill(store: Store) -> Keys:
    topic = store.create_topic(now=AN_HOUR_AGO)
    keys = store.create_subscription(settings=Settings(ack_deadline=600, start="earliest"), now=AN_HOUR_AGO)
    other = store.create_subscription("other", settings=Settings(), now=AN_HOUR_AGO)
    store.fill(topic, MESSAGES, '{"a": 1}', now=AN_HOUR_AGO)
    for topic_key, subscription_key in (keys, other):
        store.execute(
            """
            insert into fastpubsub.leases
            select %s, %s, i, i, i, '2026-01-01', case when i %% 100 = 0 then %s else %s end, 1, false, 'consumer'
            from generate_series(%s::bigint, %s::bigint) as i
            """,
            topic_key,
            subscription_key,
            LATER,
            AN_HOUR_AGO,
            TRIMMED + 1,
            TRIMMED + DEAD - 1000,
        )
        store.execute(
            "insert into fastpubsub.retries select %s, %s, %s - make_interval(secs => %s - i), i, 1, 'nacked'"
            " from generate_series(1, %s::bigint) as i",
            topic_key,
            subscription_key,
            FLOOR,
            DEAD,
            DEAD,
        )
        store.execute(
            "insert into fastpubsub.retries select %s, %s, %s + make_interval(secs => i), %s + i, 1, 'nacked'"
            " from generate_series(1, 90) as i",
            topic_key,
            subscription_key,
            NOW,
            MESSAGES - 1000,
        )
        store.execute(
            "insert into fastpubsub.claims select %s, %s, 1 + i, %s, %s, %s, %s, 0, 0"
            " from generate_series(1, %s::bigint) as i",
            topic_key,
            subscription_key,
            MESSAGES - 500,
            FLOOR,
            DEAD,
            MESSAGES - 500,
            DEAD,
        )
    store.execute(
        "insert into fastpubsub.idempotency_keys select %s, 'client', i::text, '', i, 1, %s + make_interval(secs => i)"
        " from generate_series(1, %s::bigint) as i",
        topic,
        AN_HOUR_AGO - timedelta(seconds=DEAD),
        2 * DEAD,
    )
    return keys


def fill_in_order(store: Store) -> Keys:
    """Most messages of the log have no other of their key beside them; those that have were put aside."""
    topic = store.create_topic("ordered", now=AN_HOUR_AGO)
    settings = Settings(ack_deadline=600, start="earliest", ordered=True)
    keys = store.create_subscription("ordered", "ordered", settings=settings, now=AN_HOUR_AGO)
    store.execute(
        """
        select * from fastpubsub.publish_messages(
            %s, array_fill('{}'::json, array[%s]), null, 0, %s,
            array(
                select case when i %% 10 = 0 then 'h' || i / 10 %% %s else 'k' || i end
                from generate_series(1, %s) as i order by i
            )
        )
        """,
        topic,
        ORDERED,
        AN_HOUR_AGO,
        KEYS,
        ORDERED,
    )
    for statement in (
        # What dies: a message of a turn is the last one, or is not.
        "insert into fastpubsub.busy_keys select %(topic)s, %(subscription)s, i"
        " from generate_series(1, %(turns)s) as i",
        "insert into fastpubsub.parked select %(topic)s, %(subscription)s, i, i, %(hour_ago)s, 1, 'nacked'"
        " from generate_series(1, %(turns)s) as i",
        "insert into fastpubsub.leases"
        " select %(topic)s, %(subscription)s, i, i, i, %(hour_ago)s, %(hour_ago)s, 1, false, 'consumer', i + i %% 2"
        " from generate_series(1, %(turns)s) as i",
        "insert into fastpubsub.leases"
        " select %(topic)s, %(subscription)s, 10 * i + 1, 10 * i + 4, i, %(hour_ago)s, %(later)s, 1, false, 'live', 0"
        " from generate_series(%(turns)s / 10, %(cursor)s / 10 - 1) as i",
        "insert into fastpubsub.busy_keys"
        " select %(topic)s, %(subscription)s, %(cursor)s - 10 * i from generate_series(0, %(keys)s - 1) as i",
        "insert into fastpubsub.retries"
        " select %(topic)s, %(subscription)s, %(now)s + make_interval(secs => i), %(turns)s + 10 * (%(keys)s + i), 0,"
        " 'put aside', %(turns)s + 10 * i from generate_series(1, %(keys)s) as i",
        "insert into fastpubsub.claims select %(topic)s, %(subscription)s, 2, %(cursor)s, %(floor)s, 0, 0, 0, 0, 0",
    ):
        store.connection.execute(
            statement.encode(),
            {
                "topic": topic,
                "subscription": keys.subscription,
                "turns": TURNS,
                "cursor": ORDERED_CURSOR,
                "keys": KEYS,
                "now": NOW,
                "hour_ago": AN_HOUR_AGO,
                "later": LATER,
                "floor": FLOOR,
            },
        )
    return keys


def fill_stuck(store: Store) -> Keys:
    """All messages have one key."""
    topic = store.create_topic("stuck")
    store.publish(topic, ["{}"] * STUCK, ordering_keys=["k"] * STUCK)
    return store.create_subscription("stuck", "stuck", settings=Settings(ordered=True, start="earliest"))


def wear_in_order(store: Store, keys: Keys) -> None:
    for table in ("busy_keys", "parked", "leases"):
        of_keys = "where topic_key = %s and subscription_key = %s"
        store.execute(f"delete from fastpubsub.{table} {of_keys} and position <= %s", *keys, TURNS)


def wear(store: Store, topic: int) -> None:
    store.execute("delete from fastpubsub.leases where topic_key = %s and position %% %s <> 0", topic, LIVE_EVERY)
    store.execute("delete from fastpubsub.retries where topic_key = %s and position <= %s", topic, DEAD)
    store.execute("delete from fastpubsub.claims where topic_key = %s and sequence < %s", topic, DEAD - 100)
    store.execute("delete from fastpubsub.messages where topic_key = %s and position <= %s", topic, TRIMMED)
    store.execute("delete from fastpubsub.idempotency_keys where first_position > %s", DEAD)


@pytest.fixture(scope="module", params=["analysed empty, then filled", "analysed full, then emptied", "never analysed"])
def worn(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Worn]:
    url = databases.take()
    with (
        closing(connect(libpq(url), autocommit=True).connection) as holding,
        closing(connect(libpq(url), autocommit=True).connection) as connection,
    ):
        store = Store(connection)
        keep_autovacuum_away(store, HOT)
        if request.param == "analysed empty, then filled":
            analyse(store, HOT)
        keys, in_order, stuck = fill(store), fill_in_order(store), fill_stuck(store)
        if request.param == "analysed full, then emptied":
            analyse(store, HOT)
        holding.execute("begin isolation level repeatable read")
        holding.execute("select count(*) from fastpubsub.leases")
        wear(store, keys.topic)
        wear_in_order(store, in_order)
        query = "select backend_xmin is not null from pg_stat_activity where pid = %s"
        assert store.value(query, holding.info.backend_pid)
        yield Worn(store, keys, in_order, stuck)
    databases.drop(url)


Call = Callable[[Worn, int], Any]


@dataclass(frozen=True)
class Statement:
    """`reads` are the tables whose primary keys it looks up, or names of other indexes."""

    call: Callable[[Worn, Any], object]
    reads: set[str]
    answer: Any
    prepare: Call = lambda _worn, call: call
    """What comes before and is not measured: what it returns is passed to `call`."""

    @property
    def indexes(self) -> set[str]:
        return {f"{name}_pkey" if name in HOT else name for name in self.reads}


def publish_once(worn: Worn, call: int) -> object:
    query = """
        select first_positions[1] < first_positions[2] from fastpubsub.publish_messages_once(
            %s, array['{}', '{}']::json[], null, array[1, 1], array['c', 'c'], array['a' || %s, %s],
            array['', '']::bytea[], 60
        )
    """
    return worn.store.value(query, worn.keys.topic, call, f"b{call}")


def publish_together(worn: Worn, _: int) -> bool:
    query = """
        select first_positions[1] > %s and first_positions[2] > 0 from fastpubsub.publish_to_topics(
            array[%s, %s], array[0, 0], array[0, 2], array[1, 1, 2], array['{}', '{}', '{}']::json[]
        )
    """
    return bool(worn.store.value(query, MESSAGES, worn.keys.topic, worn.other))


def ack_neighbours(worn: Worn, _: int) -> list[int]:
    """Leased together, so next to each other."""
    return worn.store.ack(worn.keys, worn.store.claim(worn.keys, 10, now=FLOOR).ids)


def give_back(worn: Worn, call: int) -> int:
    (one,) = worn.leased(call, 1)
    return worn.store.give_back(worn.keys, [one.position], one.token)


def held(worn: Worn, call: int) -> int:
    ids = worn.leased(call)
    query = "select cardinality(fastpubsub.held_leases(%s, %s, %s, %s))"
    return int(worn.store.value(query, *worn.keys, [one.position for one in ids], [one.token for one in ids]))


def reprocess(worn: Worn, call: int) -> int:
    ids = worn.leased(call)
    worn.store.reject(worn.keys, ids)
    return len(worn.store.reprocess(worn.keys, [one._replace(created_at=AN_HOUR_AGO) for one in ids]))


def purge(worn: Worn, call: int) -> int:
    ids = worn.leased(call)
    worn.store.reject(worn.keys, ids)
    return len(worn.store.purge(worn.keys, [one._replace(created_at=AN_HOUR_AGO) for one in ids]))


def claim_reprocessed(worn: Worn, call: int) -> list[Id]:
    reprocess(worn, call)
    return worn.store.claim(worn.keys, 10).ids


def keep(worn: Worn, call: int) -> object:
    query = "select * from fastpubsub.kept_log(%s, %s, null, null, 0, %s)"
    return worn.store.row(query, worn.keys.topic, TRIMMED + 1, NOW + call * timedelta(seconds=1))


def pass_busy(worn: Worn, call: int) -> list[int]:
    """A consumer has the first message of the only key, and another one looks for something else."""
    if call == 0:
        assert worn.store.claim(worn.stuck, 1).positions == [1]
    worn.store.publish(worn.stuck.topic, ["{}"] * 3, ordering_keys=["k"] * 3)
    return worn.store.claim(worn.stuck, 10).positions


def ack_turn(worn: Worn, call: int) -> list[int]:
    """The last one of a turn, whose key goes on."""
    turn = TURNS + 10 * (call + 1)
    worn.store.execute(
        "insert into fastpubsub.leases values (%s, %s, %s, %s, 7, %s, %s, 1, false, 'consumer', %s)",
        *worn.in_order,
        turn,
        turn,
        NOW,
        LATER,
        turn,
    )
    return worn.store.ack(worn.in_order, [Id(turn, 7, None)])


def many_keys(call: int) -> list[Id]:
    """Of a lease in an ordered subscription."""
    return [Id(TURNS + 10 * call + place, TURNS // 10 + call, None) for place in range(1, 5)]


CLAIM = {"cursors", "claims", "messages", "retries"}
CLAIM_IN_ORDER = CLAIM | {"leases", "leases_turn", "parked", "busy_keys", "message_keys", "revived"}
STATEMENTS = {
    "publish": Statement(
        lambda worn, _: worn.store.publish(worn.keys.topic, ["{}"] * 3).first_position > MESSAGES,
        {"heads", "messages"},
        True,
    ),
    "publish to several topics": Statement(publish_together, {"heads", "messages"}, True),
    "publish once": Statement(publish_once, {"heads", "messages", "idempotency_keys"}, True),
    "claim from the log": Statement(
        lambda worn, _: len(worn.store.claim(worn.keys, 10, now=FLOOR).positions), CLAIM, 10
    ),
    "claim what waits": Statement(
        lambda worn, _: len(worn.store.claim(worn.keys, 10, now=LATER).positions), CLAIM | {"revived"}, 10
    ),
    "poll what is empty": Statement(
        lambda worn, _: len(worn.store.claim(worn.drained, 10, now=FLOOR).positions), CLAIM, 0
    ),
    "ack": Statement(
        lambda worn, call: worn.store.ack(worn.keys, worn.leased(call)), {"cursors", "leases"}, [SETTLED] * 10
    ),
    "ack neighbours": Statement(ack_neighbours, CLAIM | {"leases"}, [SETTLED] * 10),
    "ack twice": Statement(
        lambda worn, call: worn.store.ack(worn.keys, worn.leased(call, 5) * 2), {"cursors", "leases"}, [SETTLED] * 10
    ),
    "ack what was settled": Statement(
        lambda worn, call: worn.store.ack(worn.keys, [Id(i.position - 1, 7, None) for i in worn.leased(call)]),
        {"cursors", "leases"},
        [GONE] * 10,
    ),
    "ack what others hold": Statement(
        lambda worn, call: worn.store.ack(worn.keys, [one._replace(token=7) for one in worn.leased(call)]),
        {"cursors", "leases"},
        [STALE] * 10,
    ),
    "nack": Statement(
        lambda worn, call: worn.store.nack(worn.keys, worn.leased(call)),
        {"cursors", "claims", "leases"},
        [SETTLED] * 10,
    ),
    "reject": Statement(
        lambda worn, call: worn.store.reject(worn.keys, worn.leased(call)),
        {"cursors", "claims", "leases", "messages", "revived", "dead_letters", "failures"},
        [SETTLED] * 10,
    ),
    "extend": Statement(
        lambda worn, call: worn.store.extend(worn.keys, worn.leased(call), 600), {"cursors", "leases"}, [SETTLED] * 10
    ),
    "give back": Statement(give_back, {"cursors", "claims", "leases"}, 1),
    "claim in order from the log": Statement(
        lambda worn, _: len(worn.store.claim(worn.in_order, 10, now=FLOOR).positions), CLAIM_IN_ORDER, 10
    ),
    "claim in order what was put aside": Statement(
        lambda worn, _: len(worn.store.claim(worn.in_order, 10, now=LATER).positions), CLAIM_IN_ORDER, 10
    ),
    "pass messages whose keys are busy": Statement(pass_busy, CLAIM_IN_ORDER | {"heads"}, []),
    "ack in order": Statement(
        lambda worn, call: worn.store.ack(worn.in_order, many_keys(call)), CLAIM_IN_ORDER, [SETTLED] * 4
    ),
    "ack a part in order": Statement(
        lambda worn, call: worn.store.ack(worn.in_order, many_keys(call)[1:3]), CLAIM_IN_ORDER, [SETTLED] * 2
    ),
    "ack a turn in order": Statement(ack_turn, CLAIM_IN_ORDER, [SETTLED]),
    "nack in order": Statement(
        lambda worn, call: worn.store.nack(worn.in_order, many_keys(call)), CLAIM_IN_ORDER, [SETTLED] * 4
    ),
    "reject in order": Statement(
        lambda worn, call: worn.store.reject(worn.in_order, many_keys(call)),
        CLAIM_IN_ORDER | {"dead_letters"},
        [SETTLED] * 4,
    ),
    "release in order": Statement(
        lambda worn, _: worn.store.release(worn.in_order, look_back=LOOK_BACK, limit=4, now=LATER),
        CLAIM_IN_ORDER | {"leases_expires_at"},
        (4, 0),
    ),
    "read messages": Statement(
        lambda worn, _: worn.store.row(READ, worn.keys.topic, MESSAGES - 300, 10)[2],
        {"heads", "messages"},
        list(range(MESSAGES - 299, MESSAGES - 289)),
    ),
    "read messages that are gone": Statement(
        lambda worn, _: worn.store.row(READ, worn.keys.topic, 5, 10)[1:3],
        {"heads", "messages"},
        (True, list(range(TRIMMED + 1, TRIMMED + 11))),
    ),
    "held leases": Statement(held, {"leases"}, 10),
    "list ready": Statement(
        lambda worn, _: worn.store.ready(worn.drained, worn.keys, now=FLOOR),
        CLAIM,
        [(2, True, (NOW - FLOOR).total_seconds() + 1)],
    ),
    "list expired": Statement(lambda worn, _: worn.store.expired(look_back=LOOK_BACK), {"leases_expires_at"}, []),
    "release nothing": Statement(
        lambda worn, _: worn.store.release(worn.keys, look_back=LOOK_BACK), {"cursors", "leases_expires_at"}, (0, 0)
    ),
    "release": Statement(
        lambda worn, _: worn.store.release(worn.keys, look_back=LOOK_BACK, limit=10, now=LATER),
        {"cursors", "claims", "leases", "leases_expires_at"},
        (10, 0),
    ),
    "trim messages": Statement(
        lambda worn, _: worn.store.trim(worn.keys.topic, limit=10, now=NOW),
        {"heads", "messages", "message_keys", "cursors", "claims", "leases", "retries", "failures", "dead_letters"},
        10,
    ),
    "trim claims": Statement(
        lambda worn, _: worn.store.trim_claims(worn.keys.topic, DEAD * 10, limit=10),
        {"cursors", "claims", "idempotency_keys_created_at"},
        20,
    ),
    "purge": Statement(purge, {"cursors", "claims", "leases", "messages", "revived", "dead_letters", "failures"}, 10),
    "ack what was reprocessed": Statement(
        lambda worn, ids: worn.store.ack(worn.keys, ids),
        {"cursors", "leases", "messages", "revived", "failures"},
        [SETTLED] * 10,
        claim_reprocessed,
    ),
    "what a subscription keeps": Statement(
        keep, {"heads", "messages"}, (TRIMMED + 1, AN_HOUR_AGO, "ahead", MESSAGES - TRIMMED, (MESSAGES - TRIMMED) * 89)
    ),
    "reprocess": Statement(
        reprocess, {"cursors", "claims", "leases", "messages", "retries", "revived", "dead_letters", "failures"}, 10
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_hot_statements_read_little(worn: Worn, name: str) -> None:
    """Called more often than PostgreSQL needs to change to a generic plan."""
    statement = STATEMENTS[name]
    worn.store.execute("begin")
    try:
        for number in range(CALLS):
            prepared = statement.prepare(worn, number)
            answer, usage = measure(worn.store, partial(statement.call, worn, prepared))
            assert answer == statement.answer
            assert usage.sequential == set()
            assert usage.indexes <= statement.indexes
            assert usage.entries < MAX_ENTRIES
            assert usage.blocks < MAX_BLOCKS
    finally:
        worn.store.execute("rollback")


def test_a_scrape_does_not_read_what_a_filter_has_judged(worn: Worn) -> None:
    with worn.store.undone():
        keys = worn.store.create_subscription("filtered", settings=Settings(filter='{"a": [2]}', start="earliest"))
        (metrics, judged), first = measure(worn.store, lambda: worn.store.judge(keys, 100, milliseconds=60_000))
        assert (metrics.ahead, metrics.unjudged, metrics.oldest_created_at) == (0, 0, None)
        (again, _), second = measure(worn.store, lambda: worn.store.judge(keys, 100, judged=judged))
        assert again == metrics
        assert first.entries > MESSAGES - TRIMMED
        assert second.sequential == set()
        assert (second.entries < 100, second.blocks < 200) == (True, True)
