"""What happens to whoever runs a server: wrong clocks, migrations, poolers, standbys, cold starts."""

import asyncio
import signal
import sys
import time

import psycopg

from fastpubsub.database import migrations
from fastpubsub.embedded import Account, EmbeddedPostgres
from tests import harness, pgbouncer, upgrading
from tests.faults.campaign import Fault, Figures
from tests.faults.load import addresses_of
from tests.faults.rig import SOON, Rig, Setup
from tests.faults.rows.processes import kill_worker

HELD_SECONDS = 2.0
"""For publishers, while the schema is changed and servers are replaced."""


async def skew(rig: Rig) -> Figures:
    """One more server, whose clock is wrong and jumps: leases and backoffs go by the clock of the database."""
    hours = rig.random.choice([-24, -1, 1, 24])
    command = (sys.executable, "-m", "tests.faults.broken", f"clock:{hours}")
    rig.servers.append(server := rig.start_server(command=command))
    await rig.ready(server)
    rig.load.addresses += addresses_of([server.base_url])
    await rig.load.progress(300)
    rig.load.addresses.pop()
    await rig.load.progress(10)
    rig.servers.remove(server)
    await asyncio.to_thread(server.stop)
    return {"works_s": await rig.works_again()}


async def migrate_under_way(rig: Rig) -> Figures:
    """As of the next release: two migrators at once, every procedure replaced, tables changed and changed back."""
    before = rig.load.statuses.copy()
    migrators = [await rig.run_command("db-migrate") for _ in range(2)]
    assert [await one.wait() for one in migrators] == [0, 0]
    definitions = await rig.query(
        "select pg_get_functiondef(p.oid) from pg_proc as p where p.pronamespace = 'fastpubsub'::regnamespace"
    )
    longest = 0.0
    add = "alter table fastpubsub.{} add column of_the_next_release text default 'x'"
    drop = "alter table fastpubsub.{} drop column of_the_next_release"
    steps = [";".join(one for (one,) in definitions)]
    steps += [step.format(table) for step in (add, drop) for table in ("messages", "leases", "retries", "cursors")]
    for step in steps:
        started = time.monotonic()
        await patiently_run(rig, step)
        longest = max(longest, time.monotonic() - started)
        await rig.load.progress(10)
    assert rig.load.statuses[503] == before[503], "requests failed"
    return {"changes": len(steps), "longest_change_s": longest}


async def upgrade_under_way(rig: Rig) -> Figures:
    """From the last release, whose server works meanwhile, with a database of its own."""
    await rig.query("create database upgraded")
    url = rig.database_url.removesuffix("/postgres") + "/upgraded"
    messages = 1_000_000 if rig.is_whole else 20_000
    old, new = upgrading.make_releases(rig.folder, url)
    held = await upgrading.upgrade(old, new, messages)
    assert held < HELD_SECONDS or not rig.is_whole, f"publishing was held for {held:.1f} s"
    return {"messages_there": messages, "held_s": held}


async def patiently_run(rig: Rig, statement: str) -> None:
    """Waiting for locks in turns, as db-migrate does."""
    async with asyncio.timeout(SOON):
        while True:
            try:
                return await asyncio.to_thread(run_once, rig.database_url, statement)
            except psycopg.errors.LockNotAvailable:
                await asyncio.sleep(0.1)


def run_once(url: str, statement: str) -> None:
    with psycopg.connect(harness.libpq(url)) as connection:
        connection.execute("set lock_timeout = '1s'")
        connection.execute(statement.encode())


async def fail_over(rig: Rig) -> Figures:
    """A standby that commits wait for takes over from a primary that was killed: the servers find it by themselves."""
    await start_standby(rig)
    await rig.query("alter system set synchronous_standby_names = '*'")
    await rig.query("select pg_reload_conf()")
    await rig.until_found("select sync_state from pg_stat_replication", "sync")
    await rig.load.progress()
    await rig.crash_postgres(signal.SIGKILL)
    started = time.monotonic()
    rig.database_url = rig.url(rig.ports[1])
    await rig.query("alter system reset synchronous_standby_names")
    await rig.query("select pg_promote()")
    await rig.query("select pg_reload_conf()")
    await rig.works_again()
    return {"failover_s": time.monotonic() - started}


async def start_standby(rig: Rig) -> None:
    data = rig.folder / "standby"
    half_done = data / "half_done"
    half_done.mkdir(parents=True, mode=0o700)
    account = Account(rig.postgres.cluster)
    account.give(half_done)
    options = ["-d", harness.libpq(rig.database_url), "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    program = account.reachable(rig.postgres.binaries) / "pg_basebackup"
    code, output = await asyncio.to_thread(account.run, program, half_done, options)
    assert code == 0, output
    half_done.rename(data / "cluster")
    standby = EmbeddedPostgres(data, settings={**rig.postgres.settings, "port": str(rig.ports[1])})
    rig.closing.push_async_callback(asyncio.to_thread, standby.stop)
    await asyncio.to_thread(standby.start)


async def start_cold(rig: Rig) -> Figures:
    """Before the database, before its schema, after a newer one: alive, not ready, and it says why."""
    await asyncio.to_thread(rig.postgres.stop)
    await asyncio.to_thread(rig.server.stop)
    rig.servers = [rig.start_server()]
    rig.load.addresses[:] = addresses_of([rig.server.base_url])
    await rig.until_answered("/liveness", 200)
    await expect_unready(rig, "database is down")
    await rig.start_postgres()
    after_start = await rig.until_answered("/readiness", 200)
    await rig.query("alter schema fastpubsub rename to elsewhere")
    await expect_unready(rig, "db-migrate")
    await rig.query("alter schema elsewhere rename to fastpubsub")
    after_schema = await rig.until_answered("/readiness", 200)
    await rig.query("update fastpubsub.alembic_version set version_num = '9999'")
    await expect_unready(rig, "9999")
    await rig.query("update fastpubsub.alembic_version set version_num = %s", migrations.head())
    await rig.until_answered("/readiness", 200)
    return {"ready_s": max(after_start, after_schema)}


async def expect_unready(rig: Rig, reason: str) -> None:
    wire = rig.load.wire()
    detail = ""
    until = time.monotonic() + SOON
    while reason not in detail:
        assert time.monotonic() < until, f"{detail!r} instead of {reason!r}"
        answer = await wire.ask("GET", "/readiness")
        detail = answer.json().get("detail", "")
        assert answer.status == 503 or reason not in detail
        await asyncio.sleep(0.05)


async def be_unsafe(rig: Rig) -> Figures:
    """The server of the rig was told that this is meant; one that was not is not ready."""
    rig.servers.append(server := rig.start_server(database_require_durability=True))
    rig.load.addresses[:] = addresses_of([server.base_url])
    await rig.until_answered("/liveness", 200)
    await expect_unready(rig, "fsync is off")
    return {}


STANDBY = Setup(standby=True)
UNSAFE = Setup(load=False, postgres={"fsync": "off"}, settings={"database_require_durability": False})
POOLED = Setup(through="pgbouncer", settings={"database_pooler": "transaction"})

FAULTS = [
    Fault("F09b", "failover to a synchronous standby", fail_over, 1, 0, STANDBY),
    Fault("F13", "a server whose clock is wrong and jumps", skew, 8, 0),
    Fault("F18", "migrations under way", migrate_under_way, 5, 0),
    Fault("F18b", "upgrade from the last release under way", upgrade_under_way, 1, 0, Setup(load=False)),
    Fault(
        "F19",
        "pgbouncer in transaction mode, workers killed",
        kill_worker,
        20,
        0,
        POOLED,
        pgbouncer.PROGRAM is not None,
    ),
    Fault("F25", "started before the database, its schema, after a newer one", start_cold, 3, 0, Setup(load=False)),
    Fault("F26", "fsync off", be_unsafe, 1, 0, UNSAFE),
]
