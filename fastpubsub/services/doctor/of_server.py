"""PostgreSQL itself: what it is, what it may lose, who is connected. Works without our schema."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from fastpubsub.config import Settings
from fastpubsub.services.doctor.findings import Finding, ok, problem, warning
from fastpubsub.services.doctor.patient import Patient

OLDEST, NEWEST = 14, 18
CLOCK_SECONDS = 2.0
FULL = 0.9
BESIDE_THE_POOL = 2
"""Connections of a worker for readiness and for LISTEN."""

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
    (select pg_catalog.age(d.datfrozenxid) from pg_catalog.pg_database as d where d.datname = current_database())
"""

CONNECTIONS = """
select
    count(*) filter (where a.datid is not null and coalesce(a.backend_type, 'client backend') = 'client backend'),
    count(*) filter (
        where a.application_name = 'fastpubsub' and a.pid <> pg_catalog.pg_backend_pid()
        and a.datname = current_database()
    ),
    pg_catalog.current_setting('max_connections')::integer
    - pg_catalog.current_setting('superuser_reserved_connections')::integer,
    (select r.rolconnlimit from pg_catalog.pg_roles as r where r.rolname = current_user),
    (select d.datconnlimit from pg_catalog.pg_database as d where d.datname = current_database())
from pg_catalog.pg_stat_activity as a
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


async def examine_server(patient: Patient) -> list[Finding]:
    begun, earliest = time.monotonic(), datetime.now(UTC)
    (row,) = await patient.ask(FACTS)
    took, latest = time.monotonic() - begun, datetime.now(UTC)
    server = Server(*row)
    return [
        version(server, took),
        *writable(server),
        *durability(server, patient.settings),
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
            "it takes no writes, and servers answer 503",
            "use the address of the primary, or several hosts with target_session_attrs=read-write",
        )
    elif server.is_read_only:
        yield problem(
            "writable",
            "the database is read-only: default_transaction_read_only is on",
            "servers answer 503",
            "set it off for the server, the database and the role",
        )
    else:
        yield ok("writable", "the database takes writes")
    if server.isolation != "read committed":
        yield problem(
            "isolation",
            f"default_transaction_isolation is {server.isolation}",
            "publishing and claiming must see what others have just committed, and refuse to work",
            "set it to read committed for the server, the database and the role",
        )


def durability(server: Server, settings: Settings) -> Iterator[Finding]:
    off = [name for name in ("fsync", "full_page_writes") if not getattr(server, name)]
    for name in off:
        why = "a crash of the machine can lose or destroy what was confirmed"
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
            "publishing and settling by HTTP switch it on for themselves; what applications publish from SQL does not",
            "set it to on for the roles that call fastpubsub.publish",
        )
    elif not off:
        yield ok("durability", "fsync, full_page_writes and synchronous_commit are on")


def vacuum(server: Server) -> Iterator[Finding]:
    if not server.autovacuum:
        yield problem(
            "autovacuum",
            "autovacuum or track_counts is off",
            "what was acked and deleted is never removed: the tables grow without end",
            "set both to on",
        )
    if server.oldest_transaction > WRAPAROUND:
        yield warning(
            "autovacuum",
            f"the oldest transaction id of the database is {server.oldest_transaction:,} transactions old",
            "at 2,000,000,000 PostgreSQL stops writing",
            "find what keeps vacuum from finishing: held snapshots, or autovacuum that is too slow; run vacuum freeze",
        )


def clock(server: datetime, earliest: datetime, latest: datetime) -> Finding:
    off = max((earliest - server).total_seconds(), (server - latest).total_seconds(), 0.0)
    if off < CLOCK_SECONDS:
        return ok("clock", "the clocks of this machine and of the database agree")
    return warning(
        "clock",
        f"the clocks of this machine and of the database differ by {off:.1f} s",
        "ages in metrics and the ends of tokens are off by it; leases count by the database alone",
        "let both machines take their time from NTP",
    )


async def examine_connections(patient: Patient, *, is_pooled: bool) -> list[Finding]:
    (row,) = await patient.ask(CONNECTIONS)
    used, ours, allowed, *limits = row
    limit = min([allowed, *(one for one in limits if one >= 0)])
    settings = patient.settings
    each = settings.database_pool_size + settings.database_max_overflow + BESIDE_THE_POOL
    needed = settings.api_num_workers * each
    findings = []
    if ours == 0:
        findings.append(
            warning(
                "servers",
                "no server is connected to the database, as far as this role can see",
                "nobody releases leases that ran out, deletes old messages or relays the outbox",
                "start one: fastpubsub server",
            )
        )
    else:
        findings.append(ok("servers", f"{ours} connections of servers and commands of fastpubsub"))
    sentence = f"{used} of {limit} connections are in use; one server with these settings takes up to {needed}"
    if used >= limit * FULL or (needed > limit and not is_pooled):
        findings.append(
            warning(
                "connections",
                sentence,
                "who gets no connection answers 503",
                "raise max_connections or the limit of the role, or lower FASTPUBSUB_DATABASE_POOL_SIZE, "
                "FASTPUBSUB_DATABASE_MAX_OVERFLOW or FASTPUBSUB_API_NUM_WORKERS; or put a pooler in between",
            )
        )
    else:
        findings.append(ok("connections", sentence))
    return findings
