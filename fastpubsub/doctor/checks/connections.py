"""Checks whether PostgreSQL has enough connections for the servers."""

from dataclasses import dataclass

from fastpubsub.doctor.connection import DoctorConnection
from fastpubsub.doctor.findings import Finding, ok, warning
from fastpubsub.services.turn import BESIDE_THE_POOL, most_connections

FULL = 0.9

CONNECTIONS = """
select
    count(*) filter (where a.datid is not null and coalesce(a.backend_type, 'client backend') = 'client backend'),
    count(*) filter (
        where a.application_name = 'fastpubsub' and a.pid <> pg_catalog.pg_backend_pid()
        and a.datname = current_database()
    ),
    pg_catalog.current_setting('max_connections')::integer
    - pg_catalog.current_setting('superuser_reserved_connections')::integer
    - coalesce(pg_catalog.current_setting('reserved_connections', true)::integer, 0),
    (select r.rolconnlimit from pg_catalog.pg_roles as r where r.rolname = current_user),
    (select d.datconnlimit from pg_catalog.pg_database as d where d.datname = current_database())
from pg_catalog.pg_stat_activity as a
"""


@dataclass(frozen=True, slots=True)
class Connections:
    """`limit`: for ordinary roles, so without those that PostgreSQL reserves, and of this role in this database."""

    used: int
    ours: int
    limit: int


async def count_connections(database: DoctorConnection) -> Connections:
    (row,) = await database.ask(CONNECTIONS)
    used, ours, *limits = row
    return Connections(used, ours, min(one for one in limits if one >= 0))


async def examine_connections(database: DoctorConnection, *, is_pooled: bool) -> list[Finding]:
    counted = await count_connections(database)
    needed = database.settings.api_num_workers * most_connections(database.settings)
    sentence = (
        f"{counted.used} of {counted.limit} connections are in use; one server with these settings takes up to {needed}"
    )
    if counted.used >= counted.limit * FULL or (needed > counted.limit and not is_pooled):
        return [
            servers(counted.ours),
            warning(
                "connections",
                sentence,
                "a server that gets no connection answers requests with 503",
                "raise max_connections or the limit of the role, or lower FASTPUBSUB_DATABASE_POOL_SIZE, "
                "FASTPUBSUB_DATABASE_MAX_OVERFLOW or FASTPUBSUB_API_NUM_WORKERS; or put a pooler in between",
            ),
        ]
    return [servers(counted.ours), ok("connections", sentence)]


def servers(ours: int) -> Finding:
    if ours:
        return ok("servers", f"{ours} connections of servers and commands of fastpubsub")
    return warning(
        "servers",
        "no server is connected to the database, as far as this role can see",
        "nothing releases expired leases, deletes old messages or relays the outbox",
        "start one: fastpubsub server",
    )


async def examine_processes(database: DoctorConnection, *, is_pooled: bool) -> list[Finding]:
    """What all processes may take together: one that finds none left does not say so when it starts, but later."""
    ((processes, needed),) = await database.call("inspect_processes")
    if processes == 0:
        return []
    many = "1 process of a server takes" if processes == 1 else f"{processes} processes of servers take"
    if is_pooled:
        return [ok("processes", f"{many} up to {needed} connections of the pooler")]
    counted = await count_connections(database)
    others = max(counted.used - counted.ours, 0)
    room = counted.limit - others
    sentence = f"{many} up to {needed} connections together, and {room} of {counted.limit} are left for them"
    if needed <= room:
        return [ok("processes", sentence)]
    return [
        warning(
            "processes",
            sentence,
            "when all are busy at once, some get no connection, and answer requests with 503",
            next_step(int(processes), room, int(needed) + others),
        )
    ]


def next_step(processes: int, room: int, all_needed: int) -> str:
    raised = f"raise max_connections so that {all_needed} are left beside the reserved ones"
    pool = room // processes - BESIDE_THE_POOL
    if pool < 1:
        return f"{raised}, run fewer processes, or put a pooler in between"
    return (
        f"let FASTPUBSUB_DATABASE_POOL_SIZE and FASTPUBSUB_DATABASE_MAX_OVERFLOW add up to at most {pool}, {raised}, "
        "or put a pooler in between"
    )
