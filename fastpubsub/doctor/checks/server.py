"""Checks PostgreSQL itself: its version, its durability, its clock. Works without our schema."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from fastpubsub.config import Settings
from fastpubsub.database.connections import Row
from fastpubsub.database.sessions import TIMEOUTS, encoding_problem, timeout_problem
from fastpubsub.doctor.connection import DoctorConnection
from fastpubsub.doctor.findings import Finding, ok, problem, warning

OLDEST, NEWEST = 14, 18
CLOCK_SECONDS = 2.0
WRAPAROUND = 1_000_000_000
"""Transactions; at 2,000,000,000 PostgreSQL stops to write."""

FACTS = """
select
    pg_catalog.current_setting('server_version'),
    pg_catalog.current_setting('server_version_num')::integer / 10000,
    pg_catalog.clock_timestamp(),
    pg_catalog.pg_is_in_recovery(),
    pg_catalog.current_setting('default_transaction_read_only') = 'on',
    pg_catalog.current_setting('default_transaction_isolation'),
    pg_catalog.current_setting('fsync') = 'on',
    pg_catalog.current_setting('full_page_writes') = 'on',
    pg_catalog.current_setting('synchronous_commit'),
    pg_catalog.current_setting('autovacuum') = 'on' and pg_catalog.current_setting('track_counts') = 'on',
    (select pg_catalog.age(d.datfrozenxid) from pg_catalog.pg_database as d where d.datname = current_database()),
    pg_catalog.current_setting('server_encoding')
"""


@dataclass(frozen=True, slots=True)
class Server:
    version: str
    major: int
    clock: datetime
    is_standby: bool
    is_read_only: bool
    isolation: str
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    autovacuum: bool
    oldest_transaction: int
    encoding: str


async def examine_server(database: DoctorConnection) -> list[Finding]:
    begun, earliest = time.monotonic(), datetime.now(UTC)
    (row,) = await database.ask(FACTS)
    took, latest = time.monotonic() - begun, datetime.now(UTC)
    server = Server(*row)
    return [
        version(server, took),
        *writable(server),
        *sessions(server, await database.ask(TIMEOUTS), database.settings),
        *durability(server, database.settings),
        *vacuum(server),
        clock(server.clock, earliest, latest),
    ]


def version(server: Server, took: float) -> Finding:
    what = f"PostgreSQL {server.version} answered in {took * 1000:.0f} ms"
    if server.major < OLDEST:
        return problem("version", what, f"fastpubsub needs PostgreSQL {OLDEST} or newer", "upgrade PostgreSQL")
    if server.major > NEWEST:
        return warning("version", what, f"fastpubsub is tested up to PostgreSQL {NEWEST}", "use a newer fastpubsub")
    return ok("version", what)


def writable(server: Server) -> Iterator[Finding]:
    if server.is_standby:
        yield problem(
            "writable",
            "the database is a standby",
            "it accepts no writes, and servers answer 503",
            "use the address of the primary, or several hosts with target_session_attrs=read-write",
        )
    elif server.is_read_only:
        yield problem(
            "writable",
            "the database is read-only: default_transaction_read_only is on",
            "servers answer 503",
            "turn it off for the server, the database and the role",
        )
    else:
        yield ok("writable", "the database accepts writes")
    if server.isolation != "read committed":
        yield problem(
            "isolation",
            f"default_transaction_isolation is {server.isolation}",
            "publishing and claiming need to see the latest commits, so they refuse to work",
            "set it to read committed for the server, the database and the role",
        )


def sessions(server: Server, timeouts: list[Row], settings: Settings) -> Iterator[Finding]:
    if unfit := encoding_problem(server.encoding):
        yield problem(
            "encoding",
            unfit.partition(";")[0],
            "it cannot store every character of a message; servers are not ready",
            "create database … encoding 'UTF8' locale 'C' template template0",
        )
    if unfit := timeout_problem([(name, seconds) for name, seconds in timeouts], settings):
        yield problem(
            "timeouts",
            unfit.partition(";")[0],
            "it ends calls and connections that servers still need; servers are not ready",
            "set it to 0 for the role and the database: alter role … set, alter database … set",
        )


def durability(server: Server, settings: Settings) -> Iterator[Finding]:
    off = [name for name in ("fsync", "full_page_writes") if not getattr(server, name)]
    for name in off:
        why = "a crash of the machine can lose or destroy confirmed messages"
        if settings.database_require_durability:
            yield problem("durability", f"{name} is off", f"{why}; servers are not ready", f"set {name} to on")
        else:
            yield warning(
                "durability",
                f"{name} is off, and FASTPUBSUB_DATABASE_REQUIRE_DURABILITY=false allows it",
                why,
                f"set {name} to on, unless the storage below guarantees it",
            )
    if server.synchronous_commit == "off":
        yield warning(
            "durability",
            "synchronous_commit is off",
            "publishing and settling over HTTP turn it on for themselves; publishing from SQL does not",
            "set it to on for the roles that call fastpubsub.publish",
        )
    elif not off:
        yield ok("durability", "fsync, full_page_writes and synchronous_commit are on")


def vacuum(server: Server) -> Iterator[Finding]:
    if not server.autovacuum:
        yield problem(
            "autovacuum",
            "autovacuum or track_counts is off",
            "acked and deleted rows are never removed, so the tables grow without end",
            "set both to on",
        )
    if server.oldest_transaction > WRAPAROUND:
        yield warning(
            "autovacuum",
            f"the oldest transaction id of the database is {server.oldest_transaction:,} transactions old",
            "at 2,000,000,000 PostgreSQL stops writing",
            "find the cause, such as held snapshots or a slow autovacuum; then run vacuum freeze",
        )


def clock(server: datetime, earliest: datetime, latest: datetime) -> Finding:
    off = max((earliest - server).total_seconds(), (server - latest).total_seconds(), 0.0)
    if off < CLOCK_SECONDS:
        return ok("clock", "the clocks of this machine and of the database agree")
    return warning(
        "clock",
        f"the clocks of this machine and of the database differ by {off:.1f} s",
        "ages in metrics and the ends of tokens are wrong by as much; leases use only the clock of the database",
        "synchronize the clocks of both machines by NTP",
    )
