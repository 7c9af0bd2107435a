"""Runs all checks. It always ends, and says which checks could not run."""

import asyncio
from collections.abc import Awaitable, Iterable

import psycopg

from fastpubsub.config import Settings
from fastpubsub.database.urls import normalise
from fastpubsub.doctor.checks.connections import examine_connections, examine_processes
from fastpubsub.doctor.checks.messages import (
    examine_delayed,
    examine_kept_messages,
    examine_leases,
    examine_outbox,
    examine_refused,
    examine_schedules,
    examine_subscriptions,
    examine_tables,
)
from fastpubsub.doctor.checks.nodes import examine_nodes
from fastpubsub.doctor.checks.pooler import find_pooler, judge_pooler
from fastpubsub.doctor.checks.schema import examine_schema
from fastpubsub.doctor.checks.server import examine_server
from fastpubsub.doctor.checks.settings import examine_settings
from fastpubsub.doctor.checks.snapshots import examine_snapshots
from fastpubsub.doctor.connection import DoctorConnection, reason
from fastpubsub.doctor.findings import Finding, ok, problem, warning

DEADLINE_SECONDS = 45.0
"""Ending a call under way can take ten more."""

PATIENCE_SECONDS = 300.0


async def examine(
    settings: Settings, environment: Iterable[str] = (), *, patience: float = PATIENCE_SECONDS
) -> list[Finding]:
    """Reports what has lasted longer than `patience`, in seconds: a transaction, a backlog, a lease that ran out."""
    findings = list(examine_settings(settings, environment))
    database = DoctorConnection(settings)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await examine_database(database, patience, findings)
    except TimeoutError:
        findings.append(
            problem(
                "database",
                f"the checks did not finish within {DEADLINE_SECONDS:.0f} s",
                "the database answers too slowly, to servers as well",
                "check pg_stat_activity and the load of the machine",
            )
        )
    finally:
        await database.close()
    return findings


async def examine_database(database: DoctorConnection, patience: float, findings: list[Finding]) -> None:
    reached = await reach(database)
    findings += reached
    if any(one.check == "database" and one.level == "problem" for one in reached):
        return
    pooler = "transaction" if database.settings.database_pooler == "transaction" else "none"
    try:
        pooler = await find_pooler(database)
        if not any(one.check == "pooler" for one in reached):
            findings.append(judge_pooler(pooler, database.settings.database_pooler))
    except (psycopg.Error, OSError, TimeoutError) as error:
        findings.append(unseen("pooler", error))
    findings += await looked("server", examine_server(database))
    findings += await looked("connections", examine_connections(database, is_pooled=pooler != "none"))
    findings += await looked("snapshots", examine_snapshots(database, patience))
    schema = await looked("schema", examine_schema(database))
    findings += schema
    if all(one.level == "ok" for one in schema):
        findings += await looked("nodes", examine_nodes(database))
        findings += await looked("processes", examine_processes(database, is_pooled=pooler != "none"))
        findings += await looked("tables", examine_tables(database, patience))
        findings += await looked("leases", examine_leases(database, patience))
        findings += await looked("outbox", examine_outbox(database, patience))
        findings += await looked("delayed", examine_delayed(database, patience))
        findings += await looked("refused", examine_refused(database))
        findings += await looked("schedules", examine_schedules(database, patience))
        findings += await looked("subscriptions", examine_subscriptions(database, patience))
        findings += await looked("kept", examine_kept_messages(database, patience))


async def reach(database: DoctorConnection) -> list[Finding]:
    try:
        await database.connection()
    except (psycopg.Error, OSError, TimeoutError) as error:
        is_answer = isinstance(error, psycopg.Error) and not isinstance(error, psycopg.errors.ConnectionTimeout)
        if not is_answer or database.settings.database_pooler == "transaction":
            return [unreachable(database.settings, error)]
        return await reach_without_options(database, error)
    return [ok("database", f"connected to {target(database.settings)}")]


async def reach_without_options(database: DoctorConnection, first: BaseException) -> list[Finding]:
    configured = database.settings
    database.settings = configured.model_copy(update={"database_pooler": "transaction"})
    try:
        await database.connection()
    except (psycopg.Error, OSError, TimeoutError):
        return [unreachable(configured, first)]
    return [
        ok("database", f"connected to {target(configured)}"),
        problem(
            "pooler",
            f"a pooler refuses connections with start-up options: {reason(first)}",
            "servers with these settings cannot connect",
            "in transaction mode set FASTPUBSUB_DATABASE_POOLER=transaction; in session mode set "
            "ignore_startup_parameters = options in pgbouncer",
        ),
    ]


def unreachable(settings: Settings, error: BaseException) -> Finding:
    return problem(
        "database",
        f"{target(settings)} cannot be reached: {reason(error)}",
        "nothing works without the database; servers answer 503",
        "start the database, or correct FASTPUBSUB_DATABASE_URL",
    )


def target(settings: Settings) -> str:
    """Names the database without the password."""
    url = normalise(settings.database_url.get_secret_value() if settings.database_url else "")
    hosts = url.host or url.query.get("host") or "the local socket"
    host = hosts if isinstance(hosts, str) else ",".join(hosts)
    return f"the database {url.database or '?'} at {host} as {url.username or 'the default user'}"


async def looked(check: str, look: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        return await look
    except (psycopg.Error, OSError) as error:
        return [unseen(check, error)]


def unseen(check: str, error: BaseException) -> Finding:
    return warning(
        check,
        f"this could not be checked: {reason(error)}",
        "a problem here would stay hidden",
        "let the role of FASTPUBSUB_DATABASE_URL read it, or run doctor again when the database answers",
    )
