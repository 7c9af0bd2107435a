"""One look at everything. Whatever is broken, it ends, and says what could not be seen."""

import asyncio
from collections.abc import Awaitable, Iterable

import psycopg

from fastpubsub.config import Settings
from fastpubsub.services.doctor.findings import Finding, ok, problem, warning
from fastpubsub.services.doctor.of_messages import (
    examine_kept_messages,
    examine_leases,
    examine_outbox,
    examine_subscriptions,
    examine_tables,
)
from fastpubsub.services.doctor.of_pooler import find_pooler, judge_pooler
from fastpubsub.services.doctor.of_schema import examine_schema
from fastpubsub.services.doctor.of_server import examine_connections, examine_server
from fastpubsub.services.doctor.of_settings import examine_settings
from fastpubsub.services.doctor.of_snapshots import examine_snapshots
from fastpubsub.services.doctor.patient import Patient, reason
from fastpubsub.urls import normalise

DEADLINE_SECONDS = 45.0
"""Ending a call under way can take ten more."""

PATIENCE_SECONDS = 300.0


async def examine(
    settings: Settings, environment: Iterable[str] = (), *, patience: float = PATIENCE_SECONDS
) -> list[Finding]:
    """Reports what has lasted longer than `patience`, in seconds: a transaction, a backlog, a lease that ran out."""
    findings = list(examine_settings(settings, environment))
    patient = Patient(settings)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await examine_database(patient, patience, findings)
    except TimeoutError:
        findings.append(
            problem(
                "database",
                f"the examination was not finished in {DEADLINE_SECONDS:.0f} s",
                "the database answers too slowly, and so it does to servers",
                "look into pg_stat_activity and the machine's load",
            )
        )
    finally:
        await patient.close()
    return findings


async def examine_database(patient: Patient, patience: float, findings: list[Finding]) -> None:
    reached = await reach(patient)
    findings += reached
    if any(one.check == "database" and one.level == "problem" for one in reached):
        return
    pooler = "transaction" if patient.settings.database_pooler == "transaction" else "none"
    try:
        pooler = await find_pooler(patient)
        if not any(one.check == "pooler" for one in reached):
            findings.append(judge_pooler(pooler, patient.settings.database_pooler))
    except (psycopg.Error, OSError, TimeoutError) as error:
        findings.append(unseen("pooler", error))
    findings += await looked("server", examine_server(patient))
    findings += await looked("connections", examine_connections(patient, is_pooled=pooler != "none"))
    findings += await looked("snapshots", examine_snapshots(patient, patience))
    schema = await looked("schema", examine_schema(patient))
    findings += schema
    if all(one.level == "ok" for one in schema):
        findings += await looked("tables", examine_tables(patient, patience))
        findings += await looked("leases", examine_leases(patient, patience))
        findings += await looked("outbox", examine_outbox(patient, patience))
        findings += await looked("subscriptions", examine_subscriptions(patient, patience))
        findings += await looked("kept", examine_kept_messages(patient, patience))


async def reach(patient: Patient) -> list[Finding]:
    try:
        await patient.connection()
    except (psycopg.Error, OSError, TimeoutError) as error:
        is_answer = isinstance(error, psycopg.Error) and not isinstance(error, psycopg.errors.ConnectionTimeout)
        if not is_answer or patient.settings.database_pooler == "transaction":
            return [unreachable(patient.settings, error)]
        return await reach_without_options(patient, error)
    return [ok("database", f"connected to {target(patient.settings)}")]


async def reach_without_options(patient: Patient, first: BaseException) -> list[Finding]:
    configured = patient.settings
    patient.settings = configured.model_copy(update={"database_pooler": "transaction"})
    try:
        await patient.connection()
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
        "nothing works without it; servers answer 503",
        "start it, or correct FASTPUBSUB_DATABASE_URL",
    )


def target(settings: Settings) -> str:
    """Without the password."""
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
        f"this could not be looked at: {reason(error)}",
        "what is wrong here stays hidden",
        "let the role of FASTPUBSUB_DATABASE_URL read it, or run doctor again when the database answers",
    )
