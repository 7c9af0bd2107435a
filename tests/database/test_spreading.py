"""What spreading topics over nodes needs, as far as one PostgreSQL without the extension can show it.

`make test-citus` runs the promises on a cluster that somebody has.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from fastpubsub.config import Settings
from fastpubsub.database import calls, migrations, nodes, spreading, traced
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.connections import Row
from fastpubsub.database.spreading import Node, State, Step, Table
from fastpubsub.doctor.checks.nodes import judge_nodes, judge_steps
from fastpubsub.exceptions import OutcomeUnknown, Unavailable
from fastpubsub.payloads import Batch
from fastpubsub.services.appends import Appends
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.metrics import delayed_gauges
from fastpubsub.services.subscriptions import list_subscriptions
from fastpubsub.services.wakeups import Wakeups
from tests import procedures
from tests.api.calls import success
from tests.api.conftest import app_of
from tests.conftest import Connect, MakeSettings, Run
from tests.database import delayed
from tests.database.store import NOW, SECOND, Store
from tests.spreading import CALL, reading, statements

ROOT = Path(__file__).parents[2]
HEAD = "0008"
COORDINATOR = Node("10.0.0.1:5432", 0, True, False)
WORKERS = (Node("10.0.0.2:5432", 1, True, True), Node("10.0.0.3:5432", 2, True, True))
ALL_TABLES = (*spreading.BY_TOPIC, *spreading.AT_COORDINATOR)
FUNCTIONS = frozenset({"publish_messages", "begin_call", "create_topic"})
MIGRATED = State(
    "13.2-1",
    nodes=(COORDINATOR, *WORKERS),
    tables=tuple(Table(name, "alone", 1_000_000) for name in ALL_TABLES),
    functions=FUNCTIONS,
    prepared_transactions=100,
)


def kind(name: str) -> spreading.Kind:
    return "by topic" if name in spreading.BY_TOPIC else "shown" if name in spreading.SHOWN else "alone"


SPREAD = replace(
    MIGRATED,
    tables=tuple(Table(name, kind(name), 0) for name in ALL_TABLES),
    copied=FUNCTIONS,
    on_the_node=frozenset({"publish_messages"}),
    topics={1: 3, 2: 4},
)


def test_every_table_has_a_place(store: Store) -> None:
    found = {name for (name,) in store.rows("select tablename from pg_tables where schemaname = 'fastpubsub'")}
    assert found == set(ALL_TABLES)
    assert len(ALL_TABLES) == len(found)
    assert set(spreading.SHOWN) < set(spreading.AT_COORDINATOR)


def test_every_table_by_topic_has_the_topic_in_its_keys(store: Store) -> None:
    """A unique index without it could not be kept by one node."""
    rows = store.rows(
        """
        select c.relname, a.attname from pg_index as i
        inner join pg_class as c on c.oid = i.indrelid
        inner join pg_attribute as a on a.attrelid = c.oid and a.attnum = any(i.indkey)
        where c.relnamespace = 'fastpubsub'::regnamespace and i.indisunique
        """
    )
    keys: dict[str, set[str]] = {}
    for table, column in rows:
        keys.setdefault(table, set()).add(column)
    assert all("topic_key" in keys[name] for name in spreading.BY_TOPIC)


def test_procedures_of_a_node_need_nothing_but_its_topic(store: Store) -> None:
    """Of what is on the coordinator they ask only what it shows, and the topic is their first argument."""
    sources = procedures.sources()
    parsed = {name: statements(name, source) for name, source in sources.items()}
    calls = {
        name: {call for one in parts for call in CALL.findall(one.text)} & set(parsed) for name, parts in parsed.items()
    }
    for name in sorted(spreading.ON_THE_NODE):
        reached, todo = {name}, [name]
        while todo:
            more = calls[todo.pop()] - reached
            reached |= more
            todo += more
        tables = {table for one in reached for part in parsed[one] for table in named_tables(part.text)}
        assert tables <= {*spreading.BY_TOPIC, *spreading.SHOWN}, name
        ((first,),) = store.rows("select proargnames[1] from pg_proc where proname = %s", name)
        assert first == "p_topic_key", name


def named_tables(text: str) -> set[str]:
    return {name for name in re.findall(r"\bfastpubsub\.(\w+)", text) if name in ALL_TABLES}


def test_nothing_else_knows_the_extension() -> None:
    files = [*(ROOT / "fastpubsub").rglob("*.py"), *(ROOT / "migrations").rglob("*.sql")]
    knowing = {file.name for file in files if "citus" in file.read_text(encoding="utf-8").lower()}
    assert knowing == {"spreading.py", "main.py"}
    assert (ROOT / "fastpubsub/main.py").read_text(encoding="utf-8").lower().count("citus") == 1


def test_what_is_done_for_a_migrated_database() -> None:
    work = spreading.steps(MIGRATED)
    assert [one.what for one in work if one.kind == "table shown"] == list(spreading.SHOWN)
    assert [one.what for one in work if one.kind == "table by topic"] == list(spreading.BY_TOPIC)
    assert [one for one in work if one.kind.startswith("function")] == [
        Step("function copied", "begin_call"),
        Step("function copied", "create_topic"),
        Step("function on the node", "publish_messages"),
    ]
    said = "\n".join(spreading.announcement(MIGRATED, work, 16))
    assert f"{len(spreading.BY_TOPIC)} MB" in said
    assert "16 groups, over the nodes 10.0.0.2:5432, 10.0.0.3:5432" in said
    assert "503" in said


def test_the_first_table_decides_and_the_others_follow() -> None:
    (first,) = spreading.statements(Step("table by topic", "heads"), 16)
    assert "shard_count := 16, colocate_with := 'none'" in first
    (other,) = spreading.statements(Step("table by topic", "messages"), 16)
    assert other.endswith("'topic_key', colocate_with := 'fastpubsub.heads')")
    (function,) = spreading.statements(Step("function on the node", "publish_messages"), 16)
    assert "'p_topic_key', colocate_with := 'fastpubsub.heads'" in function
    (planned,) = spreading.statements(Step("function planned", "read_log"), 16)
    assert planned == "alter function fastpubsub.read_log reset plan_cache_mode"
    (copied,) = spreading.statements(Step("function copied", "begin_call"), 16)
    assert "p_topic_key" not in copied


def test_no_function_keeps_one_plan_for_all_values() -> None:
    once = replace(SPREAD, planned_once=frozenset({"begin_call"}))
    assert spreading.steps(once) == [Step("function planned", "begin_call")]


def test_a_spread_database_has_nothing_left_to_do() -> None:
    assert spreading.steps(SPREAD) == []
    assert spreading.announcement(SPREAD, [], 16) == ["nothing is left to do: topics are spread over 2 nodes"]
    assert spreading.report(SPREAD, []) == [
        "topics are spread over 2 nodes",
        "coordinator 10.0.0.1:5432: 0 topics",
        "node 10.0.0.2:5432: 3 topics",
        "node 10.0.0.3:5432: 4 topics",
    ]


def test_after_a_migration_only_what_is_new_is_left() -> None:
    """A function that was made again is on no node; a new table is on one."""
    newer = replace(
        SPREAD,
        tables=tuple(one if one.name != "failures" else Table("failures", "alone", 8192) for one in SPREAD.tables),
        functions=FUNCTIONS | {"claim_messages_2", "is_jsonb"},
    )
    assert spreading.steps(newer) == [
        Step("table by topic", "failures", 8192),
        Step("function copied", "is_jsonb"),
        Step("function on the node", "claim_messages_2"),
    ]
    assert spreading.report(newer, spreading.steps(newer))[-1] == (
        "left to do, by `fastpubsub db-spread`: table by topic failures, function copied is_jsonb, "
        "function on the node claim_messages_2"
    )


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State(None), "no extension citus"),
        (replace(MIGRATED, version="11.3-1"), "upgrade it to 12.0 or newer"),
        (replace(MIGRATED, is_coordinator=False), "let FASTPUBSUB_DATABASE_URL name that"),
        (replace(MIGRATED, nodes=WORKERS), "citus_set_coordinator_host"),
        (replace(MIGRATED, nodes=(COORDINATOR, replace(WORKERS[0], is_active=False))), "citus_add_node"),
        (replace(MIGRATED, prepared_transactions=0), "max_prepared_transactions is 0"),
    ],
)
def test_what_cannot_be_spread(state: State, said: str) -> None:
    refused = spreading.refusal(state, HEAD, HEAD)
    assert refused is not None
    assert said in refused
    assert spreading.refusal(MIGRATED, HEAD, HEAD) is None


def test_the_schema_comes_first() -> None:
    for found, shown in ((None, "none"), ("0007", "0007")):
        assert f"at revision {shown}, and this version needs 0008" in (spreading.refusal(MIGRATED, HEAD, found) or "")


def test_on_a_postgresql_without_the_extension(run: Run, database_url: str, empty_database_url: str) -> None:
    for options in ([], ["--dry-run"]):
        refused = run("db-spread", *options, database_url=database_url)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "no extension citus" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    shown = run("db-spread", "--status", database_url=database_url)
    assert shown.stdout == "topics are on this PostgreSQL alone, which has no extension to spread them\n"
    early = run("db-spread", database_url=empty_database_url)
    assert (early.returncode, early.stdout) == (1, "")
    assert "run `fastpubsub db-migrate` first" in early.stderr
    with pytest.raises(Unavailable, match="no extension citus"):
        migrations.spread(database_url)


class Failed(psycopg.Error):
    """As a server reports it."""

    def __init__(self, state: str, message: str, table: str | None) -> None:
        super().__init__(message)
        self.sqlstate = state
        self._diag = type("Diagnostic", (), {"message_primary": message, "table_name": table})()

    @property
    def diag(self) -> psycopg.errors.Diagnostic:
        return self._diag  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "was_moved"),
    [
        (
            Failed("23505", 'duplicate key value violates unique constraint "messages_pkey_102010"', "messages_102010"),
            True,
        ),
        (Failed("23505", 'duplicate key value violates unique constraint "messages_pkey"', "messages"), False),
        (Failed("XX000", "could not find valid entry for shard 102010", None), True),
        (Failed("XX000", "duplicate key value violates unique constraint", None), True),
        (Failed("XX000", "cache lookup failed for relation 7", None), False),
        (Failed("40001", "could not serialize access", None), False),
    ],
)
def test_errors_of_a_move(error: psycopg.Error, was_moved: bool) -> None:
    assert spreading.was_moved(error) is was_moved


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = Database(settings)
    yield opened
    await opened.close()


async def test_work_over_every_topic_leaves_out_a_node_that_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of three topics is on a node of its own, as far as anybody asks; the second node does not answer."""
    keys = [(await database.fetch_one("create_topic", name))[0] for name in "abc"]
    subscriptions = [(await database.fetch_one("create_subscription", n, n, None, 10, 5, 1, 1))[1] for n in "abc"]
    for topic, subscription in zip(keys, subscriptions, strict=True):
        await database.fetch_one("publish_messages", topic, Array("json", [b"{}"]), None)
        await database.fetch_one(
            "claim_messages_2", topic, subscription, Array("int4", [1]), Array("text", ["c"]), 1000
        )
    later = datetime.now(UTC) + timedelta(hours=1)
    alone = await database.fetch_by_node("list_expired_leases", None, later)
    assert [key for key, *_ in alone] == keys

    spread(monkeypatch, database, away="b")
    fetch_all = database.fetch_all
    asked = []

    async def partly_away(procedure: str, *arguments: object) -> list[Row]:
        asked.append(arguments[-1])
        if arguments[-1] == [keys[1]]:
            raise Unavailable("the node is away")
        return await fetch_all(procedure, *arguments)

    monkeypatch.setattr(database, "fetch_all", partly_away)
    found = await database.fetch_by_node("list_expired_leases", None, later)
    assert [key for key, *_ in found] == [keys[0], keys[2]]
    assert "leaves out the topics of the node node b: the node is away" in caplog.text
    assert "the node node b is away" in caplog.text
    asked.clear()
    assert await database.fetch_by_node("list_expired_leases", None, later) == found
    assert asked == [[keys[0]], [keys[2]]], "it was asked again before its pause was over"
    spread(monkeypatch, database, away="none")
    await database._nodes.look()
    assert "the node node b is there again" in caplog.text
    assert await database.count_missing_topics() == 0


BY_NODE = b"select 'node ' || t.id, array[t.topic_key] from fastpubsub.topics as t order by t.id"


def spread(monkeypatch: pytest.MonkeyPatch, database: Database, away: str) -> None:
    """Each topic is on a node of its own, as far as anybody asks, and that of the topic `away` does not answer."""
    clocks = f"select 'node ' || t.id, case when t.id <> '{away}' then 1.0::float8 end from fastpubsub.topics as t"
    monkeypatch.setattr(nodes, "TOPICS_BY_NODE", (b"select true", BY_NODE))
    monkeypatch.setattr(nodes, "CLOCKS", clocks)
    monkeypatch.setattr(database._nodes, "_alone_until", 0.0)


async def test_a_node_that_was_replaced_is_not_missed(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its address has left the catalog, so that it can never be there again."""
    for name in "ab":
        await database.fetch_one("create_topic", name)
    spread(monkeypatch, database, away="b")
    await database._nodes.look()
    assert await database.count_missing_topics() == 1
    monkeypatch.setattr(nodes, "CLOCKS", "select 'node a', 1.0::float8 union all select 'another', 1.0::float8")
    await database._nodes.look()
    assert "the node node b was replaced or removed" in caplog.text
    assert await database._nodes.known_topics() is None


async def test_a_node_that_lets_calls_wait_is_found_out(
    make_settings: MakeSettings, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that waits is cut, others for its topics are refused without waiting, and other topics go on."""
    monkeypatch.setattr(nodes, "SLOW_SECONDS", 0.05)
    database = Database(make_settings(database_lock_timeout_seconds=60, database_call_timeout_seconds=600))
    keys = [(await database.fetch_one("create_topic", name))[0] for name in "ab"]

    async def publish(key: int) -> int:
        return int((await database.fetch_one("publish_messages", key, Array("json", [b"{}"]), None))[0])

    spread(monkeypatch, database, away="b")
    assert await database.is_spread()
    holder = await connect()
    await holder.execute("begin")
    await holder.execute("select from fastpubsub.heads where topic_key = %s for update", [keys[1]])
    with pytest.raises(OutcomeUnknown):
        await publish(keys[1])
    assert database._nodes.silent == {keys[1]}
    with pytest.raises(Unavailable, match="does not answer"):
        await publish(keys[1])
    assert await publish(keys[0]) == 1
    assert await database.count_missing_topics() == 1

    await holder.execute("rollback")
    spread(monkeypatch, database, away="none")
    for absence in database._nodes._away.values():
        absence.again_at = 0.0
    while database._nodes.silent:
        with suppress(Unavailable):
            await publish(keys[1])
        await asyncio.sleep(0.01)
    assert await publish(keys[1]) in (1, 2)
    await database.close()


async def test_nothing_is_said_of_nodes_when_the_only_database_is_away(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(make_settings(database_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing"))
    database._nodes.suspect(1)  # as after a call whose connection broke
    await database.close()
    assert caplog.text == ""


async def test_a_slow_call_on_a_node_that_is_there_goes_on(
    database: Database, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "SLOW_SECONDS", 0.01)
    (key, *_) = await database.fetch_one("create_topic", "a")
    spread(monkeypatch, database, away="none")
    assert await database.is_spread()
    holder = await connect()
    await holder.execute("begin")
    await holder.execute("select from fastpubsub.heads where topic_key = %s for update", [key])
    waiting = asyncio.create_task(database.fetch_one("publish_messages", key, Array("json", [b"{}"]), None))
    while not (database._nodes._is_finding_out or waiting.done()):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    await database._nodes._tasks.finish()
    await holder.execute("rollback")
    assert (await waiting)[0] == 1
    assert not database._nodes.silent


async def test_where_there_is_one_node_a_lost_answer_is_looked_into_once(database: Database) -> None:
    started = []
    for _ in range(2):
        database._nodes.suspect(1)
        started.append(database._nodes._is_finding_out)
        await database._nodes._tasks.finish()
    assert started == [True, False]
    assert not database._nodes.silent


def test_every_procedure_of_a_topic_is_known(store: Store) -> None:
    """Those that servers call, and that read rows of the topic that is their first argument."""
    sources = procedures.sources()
    readers = reading({name: statements(name, source) for name, source in sources.items()})
    files = [file for file in (ROOT / "fastpubsub").rglob("*.py") if file.name != "spreading.py"]
    called = set(re.findall(r'"(\w+)"', "\n".join(file.read_text(encoding="utf-8") for file in files)))
    rows = store.rows(
        "select proname from pg_proc where pronamespace = 'fastpubsub'::regnamespace and proargnames[1] = 'p_topic_key'"
    )
    of_a_topic = {name for (name,) in rows}
    assert of_a_topic >= spreading.OF_A_TOPIC
    assert (called & readers & of_a_topic) <= spreading.OF_A_TOPIC


async def test_lists_say_which_topics_are_missing(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first list finds out, and the others know."""
    for name in "abc":
        success(await client.post("/topics", json={"id": name}), 201)
        success(await client.post("/subscriptions", json={"id": f"s-{name}", "topic_id": name}), 201)
        success(await client.post(f"/topics/{name}/messages", json=[{}]), 204)
    database: Database = app_of(client).state.database
    spread(monkeypatch, database, away="b")
    fetch_all = database.fetch_all

    async def partly_away(procedure: str, *arguments: object) -> list[Row]:
        if procedure == "list_topics" and not isinstance(arguments[-1], list):
            raise Unavailable("the node is away") from psycopg.errors.ConnectionFailure()
        return await fetch_all(procedure, *arguments)

    monkeypatch.setattr(database, "fetch_all", partly_away)
    for path, ids in (
        ("/topics?limit=1", ["a"]),
        ("/topics?offset=1", ["c"]),
        ("/topics?q=b", []),
        ("/subscriptions", ["s-a", "s-c"]),
        ("/subscriptions?topic_id=b", []),
        ("/subscriptions?has_dead_letters=true", []),
    ):
        listed = success(await client.get(path), 200)
        assert ([one["id"] for one in listed["data"]], listed["missing_topics"]) == (ids, ["b"])
    assert "missing_topics" not in success(await client.get("/subscriptions?topic_id=a"), 200)
    overview = success(await client.get("/overview"), 200)
    sums = [overview[name] for name in ("topics", "subscriptions", "published", "ahead")]
    assert (sums, overview["missing_topics"]) == ([3, 3, 2, 2], ["b"])
    scraped = (await client.get("/metrics")).text
    assert "fastpubsub_topics_missing 1.0" in scraped
    assert 'subscription="s-b"' not in scraped
    assert 'subscription="s-c"' in scraped


async def test_where_there_is_one_node_nobody_asks_again_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await database.fetch_by_node("list_stranded_retries") == []
    monkeypatch.setattr(nodes, "TOPICS_BY_NODE", (b"select nothing", b"select nothing"))
    assert await database.fetch_by_node("list_stranded_retries") == []


def test_spans_name_what_asks_about_the_nodes() -> None:
    """They call no procedure."""
    asking = (*spreading.TOPICS_BY_NODE, spreading.TOPIC_IDS, spreading.CLOCKS.encode())
    assert {traced._summary(query) for query in asking} == {"SELECT pg_catalog"}
    assert traced._summary(calls._query("list_topics", 1)) == "SELECT fastpubsub.list_topics"
    assert traced._summary(calls._recorded_query("create_topic", 1)) == "SELECT fastpubsub.create_topic"


BOTH_WAYS = (
    ("list_due_topics(30, null, {now})", "list_due_topics(30, null, {now}, {topics})"),
    ("list_full_subscriptions()", "list_full_subscriptions({topics})"),
    ("list_trimmable(5, 5, {now})", "list_trimmable(5, 5, {now}, {topics})"),
    ("inspect_delayed(10, {now}, false)", "inspect_delayed(10, {now}, true)"),
    ("list_loads_2(null, 60, false)", "list_loads_2(null, 60, true)"),
    ("list_loads_2('{{b,d}}', 60, false)", "list_loads_2('{{b,d}}', 60)"),
    ("list_rhythms(null, '{{}}', 30, 10, 300, {now}, false)", "list_rhythms(null, '{{}}', 30, 10, 300, {now}, true)"),
    ("list_rhythms('{{b}}', '{{}}', 30, 10, 300, {now}, false)", "list_rhythms('{{b}}', '{{}}', 30, 10, 300, {now})"),
    (
        "list_rhythms(null, '{{}}', 30, 10, 300, {now}, false)",
        "list_rhythms(null, '{{}}', 30, 10, 300, {now}, false, {topics}, {times})",
    ),
    *(
        (
            f"list_subscriptions_4({page}, p_has_dead_letters => true, p_by_topic => false)",
            f"list_subscriptions_4({page}, p_has_dead_letters => true)",
        )
        for page in ("0, 10", "1, 1", "0, 10, '{{b}}'", "0, 10, null, 'c'", "0, 10, null, null, 'B'")
    ),
)
NONE_LEFT = ("3, 1", "5000000000, 1", "0, 10, null, null, null, 'c'", "0, 10, '{{d}}'")


def busy(store: Store, name: str) -> int:
    """A topic with delayed messages that have come, are overdue and wait, a dead letter and a backlog too long."""
    topic = store.create_topic(name)
    keys = store.create_subscription(name, name)
    delayed.delay(store, topic, 5, 60, 500)
    delayed.publish_due(store, topic, now=NOW + 10 * SECOND)
    store.fill(topic, 2)
    assert store.reject(keys, store.claim(keys, 1).ids)
    store.update_subscription(name, max_backlog=1, on_full="drop_oldest")
    store.execute(
        "insert into fastpubsub.history (topic_key, subscription_key, at, interval_seconds, published)"
        " values (%s, 0, %s, 5, 1)",
        *(topic, int(NOW.timestamp()) - 600),
    )
    return topic


def test_one_topic_after_the_other_finds_what_one_statement_does(store: Store) -> None:
    topics = [busy(store, name) for name in "cab"]
    store.create_subscription("d", "a")
    store.create_topic("empty")
    given = {"now": f"'{NOW + 100 * SECOND}'::timestamptz", "topics": f"'{{{','.join(map(str, topics))}}}'::bigint[]"}
    last = ", ".join(f"(select max(created_at) from fastpubsub.messages where topic_key = {topic})" for topic in topics)
    given["times"] = f"array[{last}]"
    for at_once, by_topic in BOTH_WAYS:
        found, same = (store.rows(f"select * from fastpubsub.{call.format(**given)}") for call in (at_once, by_topic))
        assert sorted(map(repr, found)) == sorted(map(repr, same)), by_topic
        assert found, by_topic
        assert found[0][0], by_topic
    for page in NONE_LEFT:
        for by_topic in ("true", "false"):
            call = f"list_subscriptions_4({page}, p_has_dead_letters => true, p_by_topic => {by_topic})"
            assert store.rows(f"select * from fastpubsub.{call.format(**given)}") == []


def test_topics_of_a_node_are_seen_as_all_are(store: Store) -> None:
    topics = [busy(store, name) for name in "cab"]
    store.create_subscription("d", "a")
    topics.append(store.create_topic("empty"))
    seen = store.rows("select * from fastpubsub.look_at_topics(%s, %s::bigint[], 60)", topics[0], topics)
    last = {topic: store.value("select fastpubsub.last_position(%s)", topic) for topic in topics}
    assert {row[0]: row[1] for row in seen} == last
    assert [row[0] for row in seen if row[3] is None] == [topics[-1]]
    names = store.rows("select * from fastpubsub.list_keys(null, null)")
    assert sorted(name for _, _, _, _, name in names if name is not None) == ["a", "b", "c", "d"]
    by_key = {(topic_key, key): (topic, name) for topic_key, topic, _, key, name in names}
    loads = [(*by_key[row[0], row[3]], *row[4:]) for row in seen if row[3] is not None]
    assert sorted(map(repr, loads)) == sorted(map(repr, store.rows("select * from fastpubsub.list_loads_2(null, 60)")))


def test_keys_of_what_is_visible(store: Store) -> None:
    for name in "abc":
        store.create_topic(name)
        store.create_subscription(f"s-{name}", name)
    query = "select topic_id, is_visible, subscription_id from fastpubsub.list_keys(%s, %s) order by 1"
    assert store.rows(query, ["a"], ["s-b"]) == [("a", True, None), ("b", False, "s-b")]
    assert store.rows(query, [], []) == []
    assert [row[0] for row in store.rows(query, None, [])] == ["a", "b", "c"]


async def test_the_overview_asks_each_node_once(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what one statement over all topics does."""
    for name in "abc":
        success(await client.post("/topics", json={"id": name}), 201)
        success(await client.post("/subscriptions", json={"id": f"s-{name}", "topic_id": name}), 201)
        success(await client.post(f"/topics/{name}/messages", json=[{}, {}]), 204)
    success(await client.get("/subscriptions/s-a/messages?consumer_id=c&batch_size=1"), 200)
    database: Database = app_of(client).state.database
    alone = success(await client.get("/overview"), 200)
    spread(monkeypatch, database, away="none")
    two = b"select 'node ' || (t.id = 'a'), array_agg(t.topic_key) from fastpubsub.topics as t group by 1"
    monkeypatch.setattr(nodes, "TOPICS_BY_NODE", (b"select true", two))
    called: list[str] = []
    fetch_all = database.fetch_all

    async def noted(procedure: str, *arguments: object) -> list[Row]:
        called.append(procedure)
        return await fetch_all(procedure, *arguments)

    monkeypatch.setattr(database, "fetch_all", noted)
    apart = success(await client.get("/overview"), 200)
    assert called.count("look_at_topics") == 2
    assert not {"sum_topics", "list_loads_2"}.intersection(called)
    for name in ("topics", "subscriptions", "published", "ahead", "leased", "findings", "missing_topics"):
        assert apart[name] == alone[name], name
    assert (apart["published"], apart["leased"]) == (6, 1)


async def test_what_is_listed_is_asked_by_topic_only_where_topics_are_spread(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: dict[str, object] = {}
    fetch_all = database.fetch_all

    async def noted(procedure: str, *arguments: object) -> list[Row]:
        called[procedure] = arguments[-1]
        return await fetch_all(procedure, *arguments)

    async def look() -> set[object]:
        called.clear()
        await list_subscriptions(database, 0, 10, has_dead_letters=True)
        await delayed_gauges(database)
        assert set(called) == {"list_subscriptions_4", "inspect_delayed"}
        return set(called.values())

    monkeypatch.setattr(database, "fetch_all", noted)
    assert await look() == {False}
    monkeypatch.setattr(nodes, "TOPICS_BY_NODE", (b"select true", b"select 'node', array[1::bigint]"))
    monkeypatch.setattr(database._nodes, "_alone_until", 0.0)
    assert await look() == {True}


@pytest.mark.parametrize("is_spread", [True, False])
async def test_what_is_refused_for_several_topics_is_done_for_each(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch, is_spread: bool
) -> None:
    """From then on where the catalog says that topics are spread, and once where something else was refused."""
    keys = [(await database.fetch_one("create_topic", name))[0] for name in "ab"]
    called: list[str] = []
    fetch_all = database.fetch_all

    async def refused_once(procedure: str, *arguments: object) -> list[Row]:
        called.append(procedure)
        if procedure in ("publish_to_topics", "list_ready_subscriptions_2") and called.count(procedure) == 1:
            raise psycopg.errors.FeatureNotSupported("cached plan must not change result type")
        return await fetch_all(procedure, *arguments)

    assert not await database.is_spread()
    monkeypatch.setattr(database, "fetch_all", refused_once)
    if is_spread:
        monkeypatch.setattr(nodes, "TOPICS_BY_NODE", (b"select true", b"select 'node', array[1::bigint]"))
    appends = Appends(database)
    for turn in range(2):
        appends._leaving = 2
        batch = Batch([b"{}"], None, 2)
        both = [asyncio.create_task(appends.append(key, [batch])) for key in keys]
        await asyncio.sleep(0)
        appends._go()
        assert {one.position for one in await asyncio.gather(*both)} == {turn + 1}
        await appends._answering.finish()
    assert (called.count("publish_to_topics"), called.count("publish_messages")) == ((1, 4) if is_spread else (2, 2))
    wakeups = Wakeups(database, settings)
    for _ in range(2):
        wakeups._to_look = {SubscriptionKey(key, 1) for key in keys}
        await wakeups._look_once()
    asked = called.count("list_ready_subscriptions_2"), called.count("list_ready_of_topic")
    assert asked == ((1, 4) if is_spread else (2, 0))


async def test_a_catalog_that_cannot_be_asked_stops_no_append(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [(await database.fetch_one("create_topic", name))[0] for name in "ab"]

    async def refused(_appends: object) -> None:
        raise psycopg.errors.FeatureNotSupported("of several nodes")

    async def away(**_: bool) -> bool:
        raise Unavailable("the database is away")

    appends = Appends(database)
    monkeypatch.setattr(appends, "_call_together", refused)
    monkeypatch.setattr(database, "is_spread", away)
    appends._leaving = 2
    both = [asyncio.create_task(appends.append(key, [Batch([b"{}"], None, 2)])) for key in keys]
    await asyncio.sleep(0)
    appends._go()
    assert [one.position for one in await asyncio.gather(*both)] == [1, 1]
    await appends._answering.finish()
    assert not appends._is_apart
    assert "asking where topics are waits for the database" in caplog.text


async def test_a_statement_whose_result_has_changed_is_prepared_anew(database: Database, connect: Connect) -> None:
    """After one call that is refused: each connection of a process would refuse it until its end."""
    make = "create function fastpubsub.shape({}) language sql as 'select 1{}'"
    admin = await connect()
    await admin.execute(make.format("out one integer", "").encode())
    for _ in range(10):
        assert await database.fetch_all("shape") == [(1,)]
    await admin.execute(b"drop function fastpubsub.shape()")
    await admin.execute(make.format("out one integer, out two integer", ", 2").encode())
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        await database.fetch_all("shape")
    assert await database.fetch_all("shape") == [(1, 2)]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([("a", 1.0), ("b", 1.5)], [("nodes", "ok")]),
        ([("a", 1.0), ("b", 2.5)], [("clocks", "warning")]),
        ([("a", 1.0), ("b", None)], [("nodes", "problem")]),
        ([("a", 1.0), ("b", None), ("c", 9.0)], [("nodes", "problem"), ("clocks", "warning")]),
    ],
)
def test_what_doctor_says_of_nodes(answers: list[tuple[str, float | None]], said: list[tuple[str, str]]) -> None:
    assert [(one.check, one.level) for one in judge_nodes(answers)] == said


def test_what_doctor_says_of_what_is_left() -> None:
    assert [one.level for one in judge_steps(SPREAD, [])] == ["ok"]
    (left,) = judge_steps(SPREAD, [Step("function copied", "is_jsonb")])
    assert (left.level, left.next_step) == ("warning", "fastpubsub db-spread")
