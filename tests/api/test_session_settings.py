"""Whatever the environment, the role and the database say about sessions: the same answers, or readiness refuses."""

import re
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from fastpubsub.api import probes
from fastpubsub.database.urls import normalise
from fastpubsub.doctor.examination import examine
from tests import harness, pgbouncer
from tests.api.calls import Calls, Json, success
from tests.conftest import MakeSettings, Run

REFUSED = {"default_transaction_read_only", "default_transaction_isolation", "transaction_timeout"}
"""By readiness; see test_monitoring.py and below."""

REFUSED_BEHIND_A_POOLER = {"statement_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout"}

TOO_MUCH_FOR_A_POOLER = {"client_min_messages"}
"""pgbouncer gives a login up that says much."""

IMPOSSIBLE = {"transaction_read_only", "transaction_isolation", "transaction_deferrable", "tcp_user_timeout"}
"""They belong to one transaction; the last one counts in networks only."""

WORST_TEXT = {
    "DateStyle": "SQL, DMY",
    "TimeZone": "Asia/Kolkata",
    "client_encoding": "LATIN1",
    "search_path": "hostile, pg_catalog",
    "default_text_search_config": "pg_catalog.english",
    "timezone_abbreviations": "India",
}

HOSTILE = """
create schema hostile;
create domain hostile.interval as pg_catalog.text check (false);
create function hostile.never(pg_catalog.text, pg_catalog.text) returns boolean language sql as 'select false';
create operator hostile.= (function = hostile.never, leftarg = pg_catalog.text, rightarg = pg_catalog.text);
create table hostile.messages (position bigint);
"""

ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c search_path=hostile -c statement_timeout=1 -c bytea_output=escape -c array_nulls=off",
    "PGDATESTYLE": "SQL, DMY",
    "PGTZ": "Asia/Kolkata",
}

MADE_UP = re.compile(
    r'"request_id":"\w+"|[0-9a-f]{8}-[0-9a-f-]{27}(\.[\w-]+)?|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|age_seconds{.*'
)


def settings_of(url: str, last: bool) -> dict[str, str]:
    """The worst of every setting that anybody may change: all that can be said, as far from the default as possible."""
    query = "select name, vartype, boot_val, min_val, max_val, enumvals, unit from pg_settings where context = 'user'"
    with psycopg.connect(harness.libpq(url)) as connection:
        rows = connection.execute(query).fetchall()
    return {name: value for name, *row in rows if (value := worst(name, last, *row)) is not None} | {
        "plpgsql.extra_errors": "all",
        "plpgsql.variable_conflict": "use_variable",
        "plan_cache_mode": "force_custom_plan" if last else "force_generic_plan",
    }


def worst(
    name: str, last: bool, kind: str, default: str, low: str, high: str, choices: list[str] | None, unit: str | None
) -> str | None:
    if kind == "bool":
        return "off" if default == "on" else "on"
    if choices:
        others = [one for one in choices if one != default]
        return others[-1 if last else 0] if others else None
    if kind == "string":
        return WORST_TEXT.get(name)
    if last:
        return high
    return "1" if unit in ("ms", "s") else low


def change(url: str, settings: dict[str, str]) -> None:
    target = sql.Identifier(normalise(url).database or "")
    statements = [
        sql.SQL("alter database {} set {} = {}").format(
            target,
            sql.SQL(".").join(sql.Identifier(part) for part in name.split(".")),
            # A list is no text, which would be one name.
            sql.SQL(value) if name == "search_path" else sql.Literal(value),
        )
        for name, value in settings.items()
    ]
    harness.execute(harness.with_database(url, "postgres"), sql.SQL("; ").join(statements))


async def life(client: httpx.AsyncClient) -> str:
    """What a whole life answers, without what is made up anew each time."""
    calls = Calls(client)
    seen: list[Any] = [
        await calls.topic(schema={"properties": {"é": {"maxLength": 9}}}),
        await calls.subscription(filter={"é": ["é", 1.5, True]}, backoff_min_seconds=0, max_delivery_attempts=3),
        success(await client.get("/subscriptions/s"), 200),
        success(await client.patch("/subscriptions/s", json={"ack_deadline_seconds": 90}), 200),
        success(await client.get("/topics/t"), 200),
    ]
    payloads: list[Json] = [{"é": "é", "n": None}, {"é": 1.5}, {"é": "\\'\u20ac"}, {"é": True}, {}]
    seen.append(await calls.publish(*payloads))
    one = {"payload": {"é": "é"}, "attributes": {"ü": "\u20ac\\"}}
    success(await client.post("/topics/t/messages", json={"messages": [one]}), 204)
    pulled = await calls.pull()
    seen.append(pulled)
    ids = [message["ack_id"] for message in pulled]
    seen += [await calls.ack(ids[0]), await calls.extend(ids[1], seconds=120)]
    seen += [await calls.nack(ids[1]), await calls.reject(*ids[2:], reason="é \u20ac \\ '")]
    seen += [await calls.pull(), await calls.dead_letters(), await calls.counts()]
    seen += [success(await client.get("/subscriptions/s/metrics"), 200)]
    dead = [letter["id"] for letter in await calls.dead_letters()]
    seen += [await calls.reprocess(dead[0]), await calls.purge(dead[1]), await calls.pull()]
    await calls.seek("earliest")
    seen += [
        await calls.pull(),
        success(await client.get("/topics"), 200),
        success(await client.get("/subscriptions"), 200),
    ]
    for refused in (
        await client.post("/topics", json={"id": "t"}),
        await client.get("/subscriptions/é"),
        await client.post("/topics/t/messages", json=[{"é": "too long for it"}]),
    ):
        seen.append((refused.status_code, refused.text))
    keyed = {"Idempotency-Key": "k", "Prefer": "return=representation"}
    first, second = [await client.post("/topics/t/messages", json=[{"é": "k"}], headers=keyed) for _ in range(2)]
    assert first.json() == second.json()
    scraped = (await client.get("/metrics")).text
    seen += sorted(line for line in scraped.splitlines() if line.startswith("fastpubsub_subscription"))
    seen.append((await client.get("/readiness")).text)
    return "\n".join(MADE_UP.sub("…", str(one)) for one in seen)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "READINESS_DEADLINE_SECONDS", 30.0)


@pytest.fixture
async def expected(make_settings: MakeSettings, template_url: str) -> str:
    """What a database answers that nobody has changed anything for."""
    url = harness.clone(template_url, harness.unique_name(template_url))
    try:
        async with harness.opened(make_settings(database_url=url)) as client:
            return await life(client)
    finally:
        harness.drop(url)


def make_hostile(url: str, last: bool, left_out: set[str]) -> None:
    harness.execute(url, sql.SQL(HOSTILE))
    given = settings_of(url, last)
    assert len(given) > 80
    assert left_out - {"transaction_timeout"} < given.keys()
    change(url, {name: value for name, value in given.items() if name not in left_out | IMPOSSIBLE})


@pytest.mark.parametrize("last", [False, True])
async def test_every_setting_at_its_worst(
    make_settings: MakeSettings, database_url: str, expected: str, *, last: bool
) -> None:
    make_hostile(database_url, last, REFUSED)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        async with harness.opened(make_settings()) as client:
            assert await life(client) == expected
        found = await examine(make_settings(database_url=database_url))
    assert [one for one in found if "could not be looked at" in one.what] == []


async def test_what_cannot_be_switched_off_is_refused(make_settings: MakeSettings, database_url: str) -> None:
    settings = make_settings(database_url=database_url, database_pooler="transaction")
    for name in sorted(REFUSED_BEHIND_A_POOLER | REFUSED - {"default_transaction_isolation"}):
        if name in settings_of(database_url, last=True) and "timeout" in name:
            change(database_url, {name: "8999"})
            async with harness.opened(settings) as client:
                answer = await client.get("/readiness")
            found = {one.what for one in await examine(settings) if one.check == "timeouts"}
            assert answer.status_code == 503
            assert answer.json()["detail"].startswith(f"{name} is 8.999 s, and calls may wait 9 s for a lock; set it")
            assert found == {f"{name} is 8.999 s, and calls may wait 9 s for a lock"}
            change(database_url, {name: "9000"})


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_is_not_utf8_is_refused(
    make_settings: MakeSettings, template_url: str, run: Run, encoding: str
) -> None:
    url = harness.with_database(template_url, harness.unique_name(template_url))
    create = sql.SQL("create database {} encoding {} locale 'C' template template0")
    name = sql.Identifier(normalise(url).database or "")
    harness.execute(harness.with_database(url, "postgres"), create.format(name, sql.Literal(encoding)))
    sentence = f"the encoding of the database is {encoding}, and fastpubsub needs UTF8"
    try:
        migrated = run("db-migrate", database_url=url)
        async with harness.opened(make_settings(database_url=url)) as client:
            answer = await client.get("/readiness")
        found = [one for one in await examine(make_settings(database_url=url)) if one.check == "encoding"]
    finally:
        harness.drop(url)
    assert (migrated.returncode, migrated.stderr.count("\n"), sentence in migrated.stderr) == (1, 1, True)
    assert (answer.status_code, answer.json()["detail"].partition(";")[0]) == (503, sentence)
    assert [(one.level, one.what) for one in found] == [("problem", sentence)]


if pgbouncer.PROGRAM is not None:

    @pytest.mark.parametrize("last", [False, True])
    async def test_behind_a_transaction_pooler(
        make_settings: MakeSettings, database_url: str, expected: str, *, last: bool
    ) -> None:
        """It refuses start-up options, and would refuse those of PGOPTIONS."""
        make_hostile(database_url, last, REFUSED | REFUSED_BEHIND_A_POOLER | TOO_MUCH_FOR_A_POOLER)
        with pgbouncer.running(database_url) as url, pytest.MonkeyPatch.context() as environment:
            for name, value in ENVIRONMENT.items():
                environment.setenv(name, value)
            async with harness.opened(make_settings(database_url=url, database_pooler="transaction")) as client:
                assert await life(client) == expected
