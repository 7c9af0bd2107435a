"""What is stored, and whether it moves."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from fastpubsub.services.doctor.findings import Finding, duration, ok, printable, size, warning
from fastpubsub.services.doctor.patient import Patient
from fastpubsub.services.metrics import SubscriptionGauges

SUBSCRIPTIONS = 1000
SHOWN = 10
DEAD_ROWS = 50_000
MANY_DEAD_ROWS = 2_000_000
OUTBOX_ROWS = 10_000
RELAY_SECONDS = 3.0
"""Twice as long as the slowest relay takes to look."""


async def examine_tables(patient: Patient, patience: float) -> list[Finding]:
    findings = []
    total = dead_rows = 0
    for name, live, dead, bytes_, vacuumed_at, autovacuum in await patient.call("inspect_tables"):
        total, dead_rows = total + bytes_, dead_rows + dead
        if not autovacuum:
            findings.append(
                warning(
                    "tables",
                    f"autovacuum is off for the table {name}",
                    "what is deleted from it is never removed",
                    f"alter table fastpubsub.{name} reset (autovacuum_enabled)",
                )
            )
        if dead >= MANY_DEAD_ROWS or (dead >= DEAD_ROWS and dead > live and is_before(vacuumed_at, patience)):
            last = "never" if vacuumed_at is None else f"{vacuumed_at:%Y-%m-%d %H:%M} UTC"
            findings.append(
                warning(
                    "tables",
                    f"the table {name} has {dead:,} dead rows beside {live:,}, {size(bytes_)}; last vacuum: {last}",
                    "it takes room on disk and in memory that nothing uses",
                    f"see snapshots and autovacuum; then: vacuum fastpubsub.{name}",
                )
            )
    return findings or [ok("tables", f"{size(total)} with {dead_rows:,} dead rows")]


def is_before(moment: datetime | None, patience: float) -> bool:
    return moment is None or moment < datetime.now(UTC) - timedelta(seconds=patience)


async def examine_leases(patient: Patient, patience: float) -> list[Finding]:
    ((now,),) = await patient.ask("select pg_catalog.clock_timestamp()")
    for subscription, consumer, expires_at in await patient.call("inspect_leases"):
        over = (now - expires_at).total_seconds()
        whose = f"that of consumer {printable(consumer)!r} in the subscription {subscription}"
        if over < 0 or over < patience:
            return [ok("leases", f"the lease that ends first is {whose}, in {duration(-over)}")]
        return [
            warning(
                "leases",
                f"a lease ran out {duration(over)} ago and was not released, {whose}",
                "its messages do not come again until it is; a running server does it every second",
                "start a server, and look into the logs of those that run; or: fastpubsub cleanup_stuck_messages",
            )
        ]
    return [ok("leases", "no message is with a consumer")]


async def examine_outbox(patient: Patient, patience: float) -> list[Finding]:
    """Rows come and go: what counts is whether the first one goes."""
    deadline = time.monotonic() + min(patience, RELAY_SECONDS)
    ((waiting, first),) = await patient.call("inspect_outbox", OUTBOX_ROWS)
    while first is not None and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        before = first
        ((waiting, first),) = await patient.call("inspect_outbox", OUTBOX_ROWS)
        if first != before:
            break
    else:
        if first is not None:
            count = f"{waiting:,}" + (" or more" if waiting >= OUTBOX_ROWS else "")
            return [
                warning(
                    "outbox",
                    f"{count} messages published from SQL wait, and the first is not moved on",
                    "subscribers do not get them; a running server moves them within a second",
                    "start a server, and look into the logs of those that run",
                )
            ]
    return [ok("outbox", f"{waiting:,} messages published from SQL wait to be moved")]


async def examine_subscriptions(patient: Patient, patience: float) -> list[Finding]:
    rows = await patient.call("list_subscription_metrics", SUBSCRIPTIONS)
    found = [SubscriptionGauges(*row) for row in rows]
    behind = sorted((one for one in found if one.ahead and is_behind(one, patience)), key=lambda one: -one.ahead)
    dead = sorted((one for one in found if one.dead), key=lambda one: -one.dead)
    ahead = sum(one.ahead + one.waiting for one in found)
    leased = sum(one.leased for one in found)
    return [
        *(backlog(one) for one in behind[:SHOWN]),
        *(dead_letters(one) for one in dead[:SHOWN]),
        ok("subscriptions", f"{len(found)} subscriptions: {ahead:,} messages to deliver, {leased:,} with consumers"),
    ]


def is_behind(one: SubscriptionGauges, patience: float) -> bool:
    return one.oldest_created_at is not None and is_before(one.oldest_created_at, patience)


def backlog(one: SubscriptionGauges) -> Finding:
    age = (datetime.now(UTC) - one.oldest_created_at).total_seconds() if one.oldest_created_at else 0
    return warning(
        "backlog",
        f"the subscription {one.subscription_id} is behind: {one.ahead:,} messages not delivered yet, the oldest for "
        f"{duration(age)}",
        "nobody consumes it, or not fast enough; its topic keeps all of them",
        "start consumers, or more of them; or seek to latest, or delete the subscription",
    )


def dead_letters(one: SubscriptionGauges) -> Finding:
    return warning(
        "dead_letters",
        f"the subscription {one.subscription_id} has {one.dead:,} dead letters",
        "these messages were given up, and stay until somebody decides",
        f"look at GET /subscriptions/{one.subscription_id}/dlq; then reprocess or purge them",
    )


async def examine_kept_messages(patient: Patient, patience: float) -> list[Finding]:
    findings = []
    retention = patient.settings.cleanup_acked_messages_older_than_seconds
    for topic, subscription, kept, since, own_retention in await patient.call("list_kept_messages", SHOWN):
        if is_before(since, patience + (retention if own_retention is None else own_retention)):
            findings.append(
                warning(
                    "kept",
                    f"the subscription {subscription} keeps {kept:,} messages of the topic {topic}, "
                    f"since {since:%Y-%m-%d %H:%M} UTC",
                    "messages are deleted from the front only: what is unread, leased or waits keeps those after it",
                    "consume it, reject the message that always fails, seek to latest, or delete the subscription",
                )
            )
    return findings or [ok("kept", "no subscription keeps messages beyond the retention")]
