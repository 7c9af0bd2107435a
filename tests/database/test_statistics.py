"""No procedure walks over a table that grows, whatever the statistics say: they are written by hand, for the worst.

`test_plans` measures the hot statements beside rows that others deleted; here every procedure has its turn.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from tests.database import delayed, refused, schedules
from tests.database.outbox import Relay
from tests.database.store import EVERYTHING, NOW, SECOND, Id, Settings, Settles, Store, connect
from tests.database.usage import Usage, counters, keep_autovacuum_away, used
from tests.harness import Databases, libpq

GROWING = (
    "messages",
    "message_keys",
    "claims",
    "leases",
    "retries",
    "dead_letters",
    "revived",
    "failures",
    "parked",
    "busy_keys",
    "bundles",
    "idempotency_keys",
    "outbox",
    "settlements",
    "refused_messages",
    "delayed_messages",
    "fired_messages",
    "history",
    "changes",
    "push_attempts",
    "filter_history",
    "redrives",
    "schedules",
)
ROWS = 2000
"""Of each growing table, of each of two topics. What is in the tables that have one row for each is small."""
CURSOR = 1500
DAY_AGO = NOW - timedelta(days=1)
HOUR_AGO = NOW - timedelta(hours=1)
LATER = NOW + timedelta(minutes=10)
AT = int(NOW.timestamp()) // 60 * 60
MAX_ENTRIES = 500
MAX_OF_ONE = 5 * ROWS

FILL = """
    insert into fastpubsub.message_keys select %(topic)s, i * 1000, i from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered
    )
    select %(topic)s, %(subscription)s, 1 + i, least(i, %(cursor)s), %(hour_ago)s, 0, %(cursor)s, 0, 0, 0
    from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.leases
    select %(topic)s, %(subscription)s, i, i, i, %(hour_ago)s, %(later)s + i * interval '1 s', 1, false, 'c', i
    from generate_series(1001, %(cursor)s) as i;
    insert into fastpubsub.retries
    select %(topic)s, %(subscription)s, %(later)s + i * interval '1 s', i, 1, 'nacked', null
    from generate_series(1, 500) as i;
    insert into fastpubsub.revived
    select %(topic)s, %(subscription)s, i, %(hour_ago)s, '{}' from generate_series(1, 500) as i;
    insert into fastpubsub.dead_letters
    select %(topic)s, %(subscription)s, i, %(day_ago)s, %(hour_ago)s, 1, 'rejected', '{}', null, null, null, 1
    from generate_series(501, 1000) as i;
    insert into fastpubsub.failures (
        topic_key, subscription_key, position, failed_at, attempt, cause, consumer_id
    )
    select %(topic)s, %(subscription)s, i, %(hour_ago)s, 1, 'nacked', 'c' from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.parked
    select %(topic)s, %(subscription)s, i, i + 1, %(hour_ago)s, 1, 'nacked' from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.busy_keys select %(topic)s, %(subscription)s, i from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.bundles
    select %(topic)s, %(subscription)s, i, i, array[i] from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.idempotency_keys
    select %(topic)s, 'client', i::text, '', i, 1, %(hour_ago)s + i * interval '1 s', null
    from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.settlements (
        transaction_id, topic_key, subscription_key, action, positions, tokens, lengths
    )
    select '1', %(topic)s, %(subscription)s, 'ack', '{1}', '{1}', '{1}' from generate_series(1, %(rows)s);
    insert into fastpubsub.outbox (transaction_id, topic_key, payload)
    select '1', %(topic)s, '{}' from generate_series(1, %(rows)s);
    insert into fastpubsub.refused_messages (topic_key, refused_at, reason, payload)
    select %(topic)s, %(hour_ago)s + i * interval '1 s', 'no', '{}' from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.outbox (transaction_id, topic_key, payload)
    select '2', 0, json_build_object('topic_key', %(topic)s, 'subscription_key', %(subscription)s, 'acked', 1)
    from generate_series(1, 100);
    insert into fastpubsub.fired_messages
    select %(topic)s, %(hour_ago)s + i * interval '1 ms', i, i, %(hour_ago)s from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.delayed_messages (topic_key, due_at, created_at, payload)
    select %(topic)s, %(later)s + i * interval '1 ms', %(hour_ago)s, '{}' from generate_series(1, %(rows)s) as i;
    update fastpubsub.heads set has_delayed = true where topic_key = %(topic)s;
    insert into fastpubsub.history (topic_key, subscription_key, at, interval_seconds, published, delivered)
    select %(topic)s, s, %(at)s - 60 * i, 60, 1, 1
    from generate_series(1, 1000) as i, unnest(array[0, %(subscription)s]) as s
    union all
    select %(topic)s, s, %(at)s - 5 * i, 5, 1, 1
    from generate_series(1, 700) as i, unnest(array[0, %(subscription)s]) as s;
    insert into fastpubsub.changes (changed_at, client_id, action, object, object_id)
    select %(hour_ago)s, 'client', 'create', 'topic', %(name)s || i from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.push_attempts (
        topic_key, subscription_key, position, created_at, pushed_at, attempt, outcome, milliseconds, said
    )
    select %(topic)s, %(subscription)s, i, %(day_ago)s, %(hour_ago)s + i * interval '1 s', 1, 'ok', 1, ''
    from generate_series(1, %(rows)s) as i;
    insert into fastpubsub.filter_history
    select %(topic)s, %(subscription)s, i, 'judged', null, null from generate_series(2, 99) as i;
    insert into fastpubsub.redrives (
        topic_key, subscription_key, action, died_before, matched, state, stepped_at, created_at
    )
    select %(topic)s, %(subscription)s, 'purge', %(hour_ago)s, 1, 'done', %(hour_ago)s, %(hour_ago)s
    from generate_series(1, 20);
    insert into fastpubsub.schedules (topic_key, id, payload, interval_seconds, catch_up, created_at, next_at)
    select %(topic)s, 's' || i, '{}', 60, 'once', %(hour_ago)s, %(later)s + i * interval '1 s'
    from generate_series(1, 100) as i;
"""

FILLED = {"rows": ROWS, "cursor": CURSOR, "day_ago": DAY_AGO, "hour_ago": HOUR_AGO, "later": LATER, "at": AT}


class Grown:
    """A database whose tables have grown, with a subscription of one topic, and one in order of another one."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.topic = store.create_topic(now=DAY_AGO)
        self.keys = store.create_subscription(settings=Settings(ack_deadline=600, start="earliest"), now=DAY_AGO)
        store.create_topic("other", now=DAY_AGO)
        settings = Settings(ack_deadline=600, start="earliest", ordered=True)
        self.other = store.create_subscription("other", "other", settings=settings, now=DAY_AGO)
        store.create_topic("fair", now=DAY_AGO)
        self.fair = store.create_subscription("fair", "fair", settings=Settings(fair_by="ordering_key"), now=DAY_AGO)
        store.publish(self.fair.topic, ["{}"] * ROWS, ordering_keys=["a"] * ROWS, now=HOUR_AGO)
        self.limited = store.create_subscription("limited", settings=Settings(start="earliest", max_in_flight=20))
        store.claim(self.limited, 10)
        for name, keys in (("topic", self.keys), ("other", self.other)):
            store.fill(keys.topic, ROWS, now=HOUR_AGO)
            given = dict(zip(("topic", "subscription"), keys, strict=True)) | {"name": name} | FILLED
            for statement in FILL.split(";\n"):
                store.connection.execute(statement.encode(), given)

    def held(self, count: int = 3) -> list[Id]:
        """Far from each other."""
        return [Id(1100 + 100 * place, 1100 + 100 * place, None) for place in range(count)]

    def dead(self, count: int = 3) -> list[Id]:
        return [Id(600 + 100 * place, None, DAY_AGO) for place in range(count)]

    def rows(self, call: str, *arguments: object) -> object:
        """`name(arguments)` of a procedure."""
        return self.store.rows(f"select * from fastpubsub.{call}", *arguments)


def in_transaction(grown: Grown) -> None:
    held = [f"{held.position}" for held in grown.held()]
    ids = grown.store.value(
        "select array_agg(fastpubsub.message_id(%s, p, %s) || '.' || lpad(to_hex(p), 16, '0'))"
        " from unnest(%s::bigint[]) as p",
        *(grown.topic, HOUR_AGO, held),
    )
    for call, more in (("ack", ""), ("nack", ", null"), ("reject", ", 'no'")):
        with grown.store.undone():
            grown.rows(f"{call}('subscription', %s{more})", ids)
            grown.store.execute("set constraints all immediate")


def transaction_of_the_server(grown: Grown) -> None:
    grown.rows(
        "run_transaction('{}', '{}', '{}', '{}', '{}', '{}', '{topic}', '{1}'::json[], '{null}', '{null}', '{null}',"
        " '{null}')"
    )


def redrive(grown: Grown, action: str) -> None:
    query = "select redrive_key from fastpubsub.create_redrive_2(%s, %s, %s, null, null, %s, null, 10, 3, %s)"
    key = grown.store.value(query, *grown.keys, action, NOW, NOW)
    grown.rows("step_redrive(%s, %s, %s, 10, 10, %s, 60000)", *grown.keys, key, NOW)
    grown.rows("list_redrives_2(%s, %s, %s)", *grown.keys, key)
    grown.rows("list_running_redrives()")
    grown.rows("cancel_redrive(%s, %s, %s)", *grown.keys, key)


def empty_a_purge(grown: Grown, what: str) -> None:
    """What belongs to others stays, and nobody looks at it."""
    (grown.store.delete_topic if what == "topic" else grown.store.delete_subscription)("other")
    for _ in range(2):
        grown.store.empty_purges(5)


def relay(grown: Grown) -> None:
    """What the transaction has published itself."""
    grown.rows("publish('topic', '{}')")
    listed = Relay(grown.store, limit=5).look(after=(1, 0))
    grown.store.row(
        "select * from fastpubsub.relay_messages_2(%s, %s::bigint[], %s::bigint[])",
        grown.topic,
        listed.transactions[:3],
        listed.ordinals[:3],
    )


def relay_to_another_node(grown: Grown) -> None:
    """What the transaction has published itself, once and again."""
    grown.rows("publish('topic', '{}', null, 'key')")
    listed = Relay(grown.store, limit=5).look(after=(1, 0))
    rows = listed.transactions[:3], listed.ordinals[:3]
    _, transactions, ordinals, *_ = grown.store.row(
        "select * from fastpubsub.copy_outbox(%s, %s::bigint[], %s::bigint[])", grown.topic, *rows
    )
    keys = [f"{transaction}:{ordinal}" for transaction, ordinal in zip(transactions, ordinals, strict=True)]
    types = ("text", "json", "jsonb", "text", "timestamptz", "bigint", "integer", "timestamptz")
    placeholders = ", ".join(f"%s::{one}[]" for one in types)
    nothing = [[None] * len(keys)] * 6
    for _ in range(2):
        grown.rows(f"publish_outbox(%s, {placeholders})", grown.topic, keys, ["{}"] * len(keys), *nothing)
    grown.rows("finish_outbox(%s, %s::bigint[], %s::bigint[])", grown.topic, *rows)
    grown.rows("forget_outbox_keys(%s, %s::text[])", grown.topic, keys)


def expire(grown: Grown) -> None:
    grown.store.update_subscription("subscription", expire_after_seconds=60, now=DAY_AGO)
    grown.rows("record_uses(array[%s::bigint], array[%s::bigint], %s)", *grown.keys, DAY_AGO)
    grown.rows("list_expired_subscriptions(10, %s)", NOW)
    with grown.store.refused("FP409"):
        grown.rows("expire_subscription(%s, %s, %s)", *grown.keys, NOW)


def backlog(grown: Grown) -> None:
    grown.store.update_subscription("subscription", max_backlog=10_000)
    grown.store.publish(grown.topic, ["{}"])
    grown.store.update_subscription("subscription", max_backlog=100, on_full="dead_letter")
    grown.rows("list_full_subscriptions()")
    grown.rows("list_full_subscriptions(array[%s])", grown.topic)
    grown.store.drop_backlog(grown.keys, 3)


def push(grown: Grown) -> None:
    settings = '{"settings": {"timeout_seconds": 5}, "headers": "aGVhZGVycw==", "secret": "c2VjcmV0"}'
    grown.store.update_subscription("subscription", change_push=True, push=settings)
    grown.rows("hold_endpoints(1, 15, %s)", NOW)
    grown.rows("list_endpoints(array[%s::bigint], array[%s::bigint], %s)", *grown.keys, NOW)
    grown.rows("require_push(%s, %s, 1100)", *grown.keys)
    grown.rows(
        "record_push_attempts(array[%s::bigint], array[%s::bigint], '{1}', array[%s::timestamptz], '{0}', '{1}',"
        " '{ok}', '{200}', '{1}', '{said}', %s)",
        *(*grown.keys, NOW, NOW),
    )


def schedule(grown: Grown) -> None:
    schedules.create(grown.store, grown.topic)
    schedules.update(grown.store, grown.topic)
    schedules.pause(grown.store, grown.topic)
    schedules.fire_by_hand(grown.store, grown.topic)
    schedules.get(grown.store, grown.topic)
    schedules.delete(grown.store, grown.topic)


Call = Callable[[Grown], object]

CALLS: dict[str, Call] = {
    "backlog": backlog,
    "publish": lambda grown: grown.store.publish(grown.topic, ["{}"] * 3, ordering_keys=["a", "b", None]),
    "publish once": lambda grown: grown.rows(
        "publish_messages_once(%s, '{1, 1}'::json[], null, '{1, 1}', '{client, c}', '{7, k}',"
        " array['', '']::bytea[], 60)",
        grown.topic,
    ),
    "publish to several topics": lambda grown: grown.rows(
        "publish_to_topics(array[%s, %s], '{0, 0}', '{0, 1}', '{1, 1}', '{1, 1}'::json[])",
        *(grown.topic, grown.other.topic),
    ),
    "claim": lambda grown: grown.store.claim(grown.keys, 10),
    "claim what waits": lambda grown: grown.store.claim(grown.keys, 10, now=LATER + 100 * SECOND),
    "claim up to a limit": lambda grown: grown.store.claim(grown.limited, 10),
    "claim in order": lambda grown: grown.store.claim(grown.other, 10),
    "judge a stretch of an ordered log": lambda grown: grown.rows(
        "judge_stretch(%s, %s, 1500, 1600, 1, '{}', 10, 1000000, %s, true, null, null)", *grown.other, NOW
    ),
    "take what was put aside": lambda grown: grown.rows(
        "take_put_aside(%s, %s, '{1200,1300}', '{1199,1299}', 1500, 10, 1000000, %s)", *grown.other, NOW
    ),
    "read what was claimed in order": lambda grown: (
        grown.rows("read_claimed(%s, %s, '{1200,1201,1202}')", *grown.other),
        grown.rows("read_claimed(%s, %s, '{1200,1300,1500}')", *grown.other),
        grown.rows("read_claimed(%s, %s, '{1200,1300,1500}', 1000000, %s)", *grown.other, NOW),
    ),
    "follow a busy key": lambda grown: grown.rows("follow_busy(%s, %s, 2100)", *grown.other),
    "claim in order what waits": lambda grown: grown.store.claim(grown.other, 10, now=LATER + 100 * SECOND),
    "ack": lambda grown: grown.store.ack(grown.keys, grown.held()),
    "nack": lambda grown: grown.store.nack(grown.keys, grown.held()),
    "reject": lambda grown: grown.store.reject(grown.keys, grown.held()),
    "extend": lambda grown: grown.store.extend(grown.keys, grown.held(), 60),
    "give back": lambda grown: grown.store.give_back(grown.keys, [1100], 1100),
    "ack in order": lambda grown: grown.store.ack(grown.other, grown.held()),
    "nack in order": lambda grown: grown.store.nack(grown.other, grown.held()),
    "reject in order": lambda grown: grown.store.reject(grown.other, grown.held()),
    "settle and claim": lambda grown: grown.store.settle_and_claim(
        grown.keys, Settles(acks=(grown.held(1), None)), [3]
    ),
    "settle in a transaction": in_transaction,
    "a transaction of the server": transaction_of_the_server,
    "release": lambda grown: grown.store.release(grown.keys, limit=10, look_back=7200, now=LATER + 1100 * SECOND),
    "list expired": lambda grown: grown.store.expired(now=NOW, look_back=30),
    "list ready": lambda grown: grown.store.ready(grown.keys, grown.other, grown.limited),
    "reprocess": lambda grown: grown.store.reprocess(grown.keys, grown.dead()),
    "purge": lambda grown: grown.store.purge(grown.keys, grown.dead()),
    "trim messages": lambda grown: grown.store.trim(grown.topic, limit=10),
    "trim claims": lambda grown: grown.store.trim_claims(grown.topic, 60, limit=10),
    "list trimmable": lambda grown: grown.rows("list_trimmable(86400, 86400, %s)", NOW),
    "trim the history": lambda grown: grown.rows("trim_history(10, %s)", NOW),
    "trim the history of a day ago": lambda grown: grown.rows("trim_history(10, %s)", NOW + timedelta(hours=23)),
    "trim changes": lambda grown: grown.rows("trim_changes(1, 10)"),
    "trim push attempts": lambda grown: grown.rows("trim_push_attempts(60, 10, %s)", NOW),
    "empty the purge of a topic": lambda grown: empty_a_purge(grown, "topic"),
    "empty the purge of a subscription": lambda grown: empty_a_purge(grown, "subscription"),
    "relay": relay,
    "relay to another node": relay_to_another_node,
    "record the history": lambda grown: grown.rows(
        "record_history('{topic}', '{1}', '{subscription}', '{1}', '{1}', '{1}', '{1}', '{1}', '{1}', '{1}', %s)", NOW
    ),
    "record a change": lambda grown: grown.rows("record_change('c', 'r', 'create', 'topic', 'topic', null)"),
    "expire": expire,
    "push": push,
    "schedules": schedule,
    "list schedules": lambda grown: grown.rows("list_schedules(%s, null, 's5', 10)", grown.topic),
    "list due schedules": lambda grown: schedules.due(grown.store, NOW, look_back=60),
    "read the outbox": lambda grown: grown.rows("read_outbox(%s, array[1, 1], array[5, 6])", grown.topic),
    "refuse": lambda grown: grown.rows(
        "relay_messages_2(%s, array[1, 1], array[5, 6], 0, array['no', null])", grown.topic
    ),
    "count what is settled": lambda grown: grown.rows("take_settled(array[2, 2], array[4001, 4002])"),
    "list what was refused": lambda grown: refused.listed(grown.store, grown.topic, after=1000, limit=10),
    "list some that were refused": lambda grown: refused.listed(grown.store, grown.topic, keys=[5, 6]),
    "publish what was refused": lambda grown: refused.publish(grown.store, grown.topic, 5, 6),
    "purge what was refused": lambda grown: refused.purge(grown.store, grown.topic, 7, 8),
    "count what was refused": lambda grown: refused.count(grown.store, limit=10),
    "count what was refused of some": lambda grown: refused.count(grown.store, limit=10, topics=["topic"]),
    "trim what was refused": lambda grown: grown.rows("trim_refused_messages(60, 10, %s)", NOW),
    "list due topics": lambda grown: delayed.due_topics(grown.store),
    "list due topics of a node": lambda grown: grown.rows("list_due_topics(30, null, %s, array[%s])", NOW, grown.topic),
    "delay": lambda grown: delayed.publish(grown.store, grown.topic, delayed.Request(["1", "2"], [None, 5], "key")),
    "publish what is due": lambda grown: delayed.publish_due(grown.store, grown.topic, now=LATER + SECOND, limit=10),
    "mark what is due": lambda grown: delayed.publish_due(grown.store, grown.topic),
    "move a delayed message": lambda grown: delayed.move(grown.store, grown.topic, 100, seconds=5),
    "cancel a delayed message": lambda grown: delayed.cancel(grown.store, grown.topic, 100),
    "cancel one that was published": lambda grown: delayed.cancel(grown.store, grown.other.topic, 7),
    "get a delayed message": lambda grown: delayed.get(grown.store, grown.topic, 100),
    "get one that was published": lambda grown: delayed.get(grown.store, grown.other.topic, 7),
    "list delayed messages": lambda grown: delayed.listed(grown.store, grown.topic, limit=10),
    "release delayed messages": lambda grown: delayed.release(grown.store, grown.topic, 10),
    "hold delayed messages": lambda grown: (
        delayed.publish_due(grown.store, grown.topic, now=NOW + timedelta(days=9), limit=10),
        delayed.listed(grown.store, grown.topic, held=True, limit=10),
        delayed.release(grown.store, grown.topic, 10, now=NOW + timedelta(days=9)),
    ),
    "inspect delayed messages": lambda grown: delayed.inspect(grown.store, limit=10),
    "inspect delayed messages at once": lambda grown: grown.rows("inspect_delayed(10, %s, false)", NOW),
    "read messages": lambda grown: grown.rows("read_messages_2(%s, 1000, 10, 1000000)", grown.topic),
    "find a message": lambda grown: grown.rows("find_message_2(%s, 7)", grown.topic),
    "browse what is ahead": lambda grown: grown.store.browse(grown.keys, limit=10),
    "browse what is leased": lambda grown: grown.store.browse(grown.keys, "leased", 1200, limit=10),
    "browse what waits": lambda grown: grown.store.browse(grown.keys, "waiting", None, LATER + 100 * SECOND, limit=10),
    "browse what is dead": lambda grown: grown.store.browse(grown.keys, "dead", 700, limit=10),
    "browse everything": lambda grown: grown.store.browse(grown.keys, "all", 100, limit=10),
    "browse everything backwards": lambda grown: grown.store.browse(
        grown.keys, "all", None, NOW, limit=10, backwards=True
    ),
    "list dead letters": lambda grown: grown.store.page_of_dead_letters(grown.keys, 0, 10, EVERYTHING, 600),
    "figures of topics": lambda grown: grown.rows("list_topic_figures('{topic}')"),
    "inspect leases": lambda grown: grown.rows("inspect_leases()"),
    "inspect the outbox": lambda grown: grown.rows("inspect_outbox(10)"),
    "sum topics": lambda grown: grown.rows("sum_topics(null, null)"),
    "list topic metrics": lambda grown: grown.rows("list_topic_metrics(10)"),
    "list subscriptions with dead letters": lambda grown: grown.rows(
        "list_subscriptions_4(0, 10, p_has_dead_letters => true)"
    ),
    "list subscriptions with dead letters at once": lambda grown: grown.rows(
        "list_subscriptions_4(0, 10, p_has_dead_letters => true, p_by_topic => false)"
    ),
    "explain a message that is leased": lambda grown: grown.store.explain(grown.keys, 1100, 10),
    "explain a message that is dead": lambda grown: grown.store.explain(grown.keys, 600, 10),
    "explain a message that is ahead": lambda grown: grown.store.explain(grown.keys, CURSOR + 9, 10),
    "list push attempts": lambda grown: grown.rows("list_push_attempts(%s, %s, null, null, 10)", *grown.keys),
    "list push attempts of a message": lambda grown: grown.rows("list_push_attempts(%s, %s, 1, null, 10)", *grown.keys),
    "list changes": lambda grown: grown.rows("list_changes(null, null, null, null, null, 1000, 10)"),
    "list changes of a client": lambda grown: grown.rows("list_changes(null, null, 'nobody', null, null, null, 10)"),
    "list changes of a time": lambda grown: grown.rows(
        "list_changes(null, null, null, %s, %s, null, 10)", LATER, LATER + SECOND
    ),
    "list changes before a time": lambda grown: grown.rows(
        "list_changes(null, null, null, null, %s, null, 10)", DAY_AGO
    ),
    "list changes of an object": lambda grown: grown.rows(
        "list_changes('topic', 'topic7', null, null, null, null, 10)"
    ),
    "find a refused message": lambda grown: grown.rows("find_refused_message(%s, 77)", grown.topic),
    "list changes of a kind": lambda grown: grown.rows("list_changes('client', null, null, null, null, null, 10)"),
    "list changes of an id": lambda grown: grown.rows("list_changes(null, 'topic7', null, null, null, null, 10)"),
    "flows": lambda grown: grown.rows("list_flows('{subscription, other}', 300, %s)", NOW),
    "lift stranded retries": lambda grown: grown.rows("lift_stranded_retries(%s, %s)", *grown.keys),
    "list stranded retries": lambda grown: grown.rows("list_stranded_retries()"),
    "preview a filter": lambda grown: grown.rows("preview_filter(%s, %s, '{\"a\": [1]}', 10)", *grown.keys),
    "judge the last messages": lambda grown: grown.rows(
        "judge_last_messages(%s, '{\"a\": [1]}', 10, 1000000, true, 5, 60000)", grown.topic
    ),
    "change a filter": lambda grown: grown.store.update_subscription(
        "subscription", change_filter=True, filter='{"a": [1]}'
    ),
}
"""They look at some rows."""

OF_ONE: dict[str, Call] = {
    "claim fairly": lambda grown: [grown.store.claim(grown.fair, 10, now=NOW + n * SECOND) for n in range(3)],
    "reprocess what may come again": lambda grown: (
        grown.store.execute("update fastpubsub.cursors set sought_sequence = 10000"),
        grown.store.reprocess(grown.other, grown.dead()),
        grown.rows("key_turns(%s, %s, '{900}')", *grown.other),
    ),
    "metrics": lambda grown: grown.store.judge(grown.keys, 10),
    "figures": lambda grown: grown.rows("list_subscription_figures_2('{subscription}', 10, %s)", NOW),
    "list ready of a topic": lambda grown: grown.rows(
        "list_ready_of_topic(%s, array[%s]::bigint[], %s)", *grown.keys, NOW
    ),
    "list kept messages": lambda grown: grown.rows("list_kept_messages(10)"),
    "inspect kept messages": lambda grown: grown.rows("inspect_kept_messages(10, 60, %s)", NOW),
    "fork": lambda grown: grown.store.fork_subscription("fork"),
    "seek": lambda grown: grown.store.seek(grown.keys, "earliest"),
    "preview a seek": lambda grown: grown.rows("preview_seek(%s, %s, 'time', %s, null, 10)", *grown.keys, NOW),
    "purge everything": lambda grown: grown.store.purge_all(grown.keys, 10),
    "list consumers": lambda grown: grown.rows(
        "list_consumers(%s, %s, 1, '{}', '{}', '{}', null, 10, 15, %s)", *grown.keys, NOW
    ),
    "list the reasons of dead letters": lambda grown: grown.rows("list_dead_letter_reasons(%s, %s, 10)", *grown.keys),
    "reprocess with a redrive": lambda grown: redrive(grown, "reprocess"),
    "purge with a redrive": lambda grown: redrive(grown, "purge"),
    "explain a message that waits": lambda grown: grown.store.explain(grown.keys, 400, 10),
    "explain a message that was put aside": lambda grown: grown.store.explain(grown.other, 900, 10),
    "explain in subscriptions": lambda grown: grown.rows("explain_in_subscriptions_2(%s, 1, null, 0, 10)", grown.topic),
    "history": lambda grown: grown.rows(
        "list_history('{topic}', '{subscription}', 60, %s, %s, %s)", *(AT - 86400, AT, NOW)
    ),
    "rhythms": lambda grown: grown.rows("list_rhythms('{topic}', '{subscription}', 600, 10, 300, %s)", NOW),
    "rhythms at once": lambda grown: grown.rows(
        "list_rhythms('{topic}', '{subscription}', 600, 10, 300, %s, false)", NOW
    ),
    "rhythms of known times": lambda grown: grown.rows(
        "list_rhythms('{topic}', '{subscription}', 600, 10, 300, %s, false, array[%s::bigint], array[%s::timestamptz])",
        *(NOW, grown.topic, DAY_AGO),
    ),
    "list keys": lambda grown: grown.rows("list_keys('{topic}', '{subscription}')"),
    "scrape": lambda grown: grown.rows("list_subscription_metrics_2(10, 60, '{}', '{}', '{}', '{}', 1000, %s)", NOW),
}
"""They look at all that one subscription has of something."""

OF_ALL: dict[str, Call] = {
    "loads": lambda grown: grown.rows("list_loads_2(null, 60)"),
    "look at topics": lambda grown: grown.rows("look_at_topics(%s, array[%s::bigint], 60)", grown.topic, grown.topic),
    "loads at once": lambda grown: grown.rows("list_loads_2(null, 60, false)"),
    "inspect schedules": lambda grown: grown.rows("inspect_schedules(%s)", NOW),
}
"""They count what all subscriptions have."""

# Before 18, what is off costs 1e10: no plan may cost as much.
NEVER, FEW, MANY, AS_MANY = -1, 1, 1e5, 2 * ROWS
UNIQUE, THE_SAME = -1, 1
STATISTICS: dict[str, tuple[float, int | None, str | None]] = {
    "never analysed": (NEVER, None, None),
    "nearly everything is dead": (FEW, UNIQUE, None),
    "one row": (FEW, THE_SAME, None),
    "very many": (MANY, THE_SAME, None),
    "when one subscription had everything": (AS_MANY, THE_SAME, "topic"),
    "when another one had everything": (AS_MANY, UNIQUE, "other"),
}
"""Rows of each table, distinct values of each column, and the topic whose keys are the only ones."""

COUNTED = """
    update pg_class set
        reltuples = %(rows)s,
        relpages = case
            when %(rows)s < 0 then 0
            else greatest(pg_relation_size(oid) / current_setting('block_size')::integer, 1)
        end
    where relnamespace = 'fastpubsub'::regnamespace and relname = any(%(tables)s);
    delete from pg_statistic where starelid in (
        select oid from pg_class where relnamespace = 'fastpubsub'::regnamespace and relname = any(%(tables)s)
    );
    insert into pg_statistic (
        starelid, staattnum, stainherit, stanullfrac, stawidth, stadistinct, stakind1, stakind2, stakind3, stakind4,
        stakind5, staop1, staop2, staop3, staop4, staop5, stacoll1, stacoll2, stacoll3, stacoll4, stacoll5,
        stanumbers1, stavalues1
    )
    select
        a.attrelid, a.attnum, false, 0, 8, case when k.key is null then %(distinct)s else 1 end,
        (k.key is not null)::integer, 0, 0, 0,
        0, case when k.key is not null then 'pg_catalog.=(bigint,bigint)'::regoperator::oid else 0 end, 0, 0, 0, 0,
        0, 0, 0, 0, 0, case when k.key is not null then '{1}'::real[] end,
        case when k.key is not null then array_in(format('{%%s}', k.key)::cstring, 'bigint'::regtype, -1) end
    from pg_class as c
    join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join (values ('topic_key', %(topic)s::bigint), ('subscription_key', %(subscription)s)) as k (name, key)
        on k.name = a.attname and k.key is not null
    where
        c.relnamespace = 'fastpubsub'::regnamespace and c.relname = any(%(tables)s)
        and %(distinct)s::integer is not null
"""


def pin(grown: Grown, name: str) -> None:
    """Until the transaction is rolled back."""
    rows, distinct, only = STATISTICS[name]
    topic, subscription = {"topic": grown.keys, "other": grown.other}[only] if only else (None, None)
    given = {"rows": rows, "distinct": distinct, "topic": topic, "subscription": subscription}
    for statement in COUNTED.split(";\n"):
        grown.store.connection.execute(statement.encode(), given | {"tables": list(GROWING)})


@pytest.fixture(scope="module")
def grown(databases: Databases) -> Iterator[Grown]:
    url = databases.take()
    with closing(connect(libpq(url), autocommit=True).connection) as connection:
        store = Store(connection)
        keep_autovacuum_away(store, GROWING)
        # The settlements are of no transaction that runs.
        store.execute("set session_replication_role = replica")
        filled = Grown(store)
        store.execute("reset session_replication_role")
        store.execute("set track_functions = 'all'")
        yield filled
    databases.drop(url)


PLANS = (
    ("never analysed", "force_generic_plan"),
    ("nearly everything is dead", "force_custom_plan"),
    ("one row", "force_generic_plan"),
    ("very many", "force_custom_plan"),
    ("when one subscription had everything", "force_custom_plan"),
    ("when one subscription had everything", "force_generic_plan"),
    ("when another one had everything", "force_custom_plan"),
)


@pytest.mark.parametrize(("statistics", "plans"), PLANS)
def test_nobody_walks_over_what_others_have(grown: Grown, statistics: str, plans: str) -> None:
    store = grown.store
    found: dict[str, Usage] = {}
    store.execute("discard plans")
    with store.undone():
        store.execute(f"set local plan_cache_mode = {plans}")
        pin(grown, statistics)
        before = counters(store, GROWING)
        for calls, most in ((CALLS, MAX_ENTRIES), (OF_ONE, MAX_OF_ONE)):
            for name, call in calls.items():
                with store.undone():
                    call(grown)
                after = counters(store, GROWING)
                usage = used(before, after)
                if usage.sequential or usage.entries > most:
                    found[name] = usage
                before = after
    assert found == {}


PROCEDURES = """
    select p.proname from pg_proc as p join pg_language as l on l.oid = p.prolang
    where
        p.pronamespace = 'fastpubsub'::regnamespace and l.lanname = 'plpgsql' and p.prosrc ~ %s
        and coalesce(pg_stat_get_xact_function_calls(p.oid), 0) = 0
"""
ELSEWHERE = {
    # Of the hot statements, in test_plans.
    *("continue_turn", "pass_busy_keys"),
    *("cut_leases", "forget_old_failures", "name_turns"),
    # They read the log between two positions, as those do that were called.
    *("pass_expired", "read_matching_log"),
    "expire_subscription",  # was refused, which is not counted
    "end_hold",  # finds its rows by their whole keys
    "publish_dead_letters",
}


def test_every_procedure_has_its_turn(grown: Grown) -> None:
    """A new one that reads a table that grows needs a call above."""
    with grown.store.undone():
        for call in (CALLS | OF_ONE | OF_ALL).values():
            with grown.store.undone():
                call(grown)
        left = grown.store.rows(PROCEDURES, rf"fastpubsub\.({'|'.join(GROWING)})\M")
    assert {name for (name,) in left} == ELSEWHERE
