"""Finds what keeps vacuum from removing deleted rows: sessions, prepared transactions, replication slots."""

from fastpubsub.doctor.connection import DoctorConnection
from fastpubsub.doctor.findings import Finding, duration, ok, printable, size, warning

WHY = "vacuum cannot remove rows deleted since then: the tables grow, although throughput stays"

TRANSACTIONS = 100_000
"""For what shows no time: sessions of others without pg_read_all_stats, standbys, slots."""

SESSIONS = """
select
    a.pid, a.usename, a.application_name, a.state, a.query,
    extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::double precision as open_for,
    pg_catalog.age(coalesce(a.backend_xmin, a.backend_xid))
from pg_catalog.pg_stat_activity as a
where
    a.pid <> pg_catalog.pg_backend_pid()
    and coalesce(a.backend_xmin, a.backend_xid) is not null
    and coalesce(a.backend_type, '') <> 'autovacuum worker'
    and (a.datname = current_database() or a.datid is null)
    and case
        when a.xact_start is null then pg_catalog.age(coalesce(a.backend_xmin, a.backend_xid)) >= %s
        else a.xact_start <= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s)
    end
order by 7 desc, 1
limit 10
"""

PREPARED = """
select p.gid, p.owner, extract(epoch from pg_catalog.clock_timestamp() - p.prepared)::double precision
from pg_catalog.pg_prepared_xacts as p
where
    p.database = current_database()
    and p.prepared <= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s)
order by p.prepared
limit 10
"""

SLOTS = """
select
    s.slot_name, s.slot_type, s.active, coalesce(pg_catalog.age(s.xmin), 0),
    case
        when pg_catalog.pg_is_in_recovery() then 0
        else coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn), 0)
    end::double precision
from pg_catalog.pg_replication_slots as s
where not s.active or pg_catalog.age(s.xmin) >= %s
order by 4 desc, 5 desc
limit 10
"""


async def examine_snapshots(database: DoctorConnection, patience: float) -> list[Finding]:
    found = [
        *await sessions(database, patience),
        *await prepared_transactions(database, patience),
        *await replication_slots(database),
    ]
    return found or [
        ok("snapshots", f"no transaction has been open for {duration(patience)}, and no slot is left behind")
    ]


async def sessions(database: DoctorConnection, patience: float) -> list[Finding]:
    found = []
    for pid, user, application, state, query, open_for, age in await database.ask(SESSIONS, TRANSACTIONS, patience):
        since = f"{age:,} transactions" if open_for is None else duration(open_for)
        who = f"process {pid} (user {printable(user) or '?'}, application {printable(application) or '?'})"
        statement = printable(query) or "hidden; to let this role see it: grant pg_read_all_stats"
        found.append(
            warning(
                "snapshots",
                f"{who} has had a transaction open for {since}, {state or 'state unknown'}; its statement: {statement}",
                WHY,
                f"end it there, or with: select pg_terminate_backend({pid}); to prevent the next one: "
                "idle_in_transaction_session_timeout",
            )
        )
    return found


async def prepared_transactions(database: DoctorConnection, patience: float) -> list[Finding]:
    return [
        warning(
            "snapshots",
            f"the prepared transaction {printable(name)!r} of {printable(owner)} has waited for {duration(seconds)}",
            WHY + "; and it keeps its locks",
            f"finish it: commit prepared '{printable(name)}', or rollback prepared",
        )
        for name, owner, seconds in await database.ask(PREPARED, patience)
    ]


async def replication_slots(database: DoctorConnection) -> list[Finding]:
    return [
        warning(
            "snapshots",
            f"the {kind} replication slot {printable(name)} is {'behind' if active else 'not in use'}: "
            f"it holds {size(retained)} of WAL and a snapshot of {age:,} transactions ago",
            "the slot keeps WAL on disk until the disk is full" + (f"; {WHY}" if age else ""),
            f"start its consumer again, or: select pg_drop_replication_slot('{printable(name)}')",
        )
        for name, kind, active, age, retained in await database.ask(SLOTS, TRANSACTIONS)
    ]
