"""Checks the stored messages, and whether they move."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from fastpubsub.doctor.connection import DoctorConnection
from fastpubsub.doctor.findings import Finding, duration, ok, printable, size, warning
from fastpubsub.message_ids import MessageIds
from fastpubsub.services.metrics import SubscriptionGauges, gauges

SUBSCRIPTIONS = 1000
SHOWN = 10
DEAD_ROWS = 50_000
MANY_DEAD_ROWS = 2_000_000
OUTBOX_ROWS = 10_000
RELAY_SECONDS = 3.0
"""Twice as long as the slowest relay takes to look."""


async def examine_tables(database: DoctorConnection, patience: float) -> list[Finding]:
    findings = []
    total = dead_rows = 0
    for name, live, dead, bytes_, vacuumed_at, autovacuum in await database.call("inspect_tables"):
        total, dead_rows = total + bytes_, dead_rows + dead
        if not autovacuum:
            findings.append(
                warning(
                    "tables",
                    f"autovacuum is off for the table {name}",
                    "deleted rows are never removed from it",
                    f"alter table fastpubsub.{name} reset (autovacuum_enabled)",
                )
            )
        if dead >= MANY_DEAD_ROWS or (dead >= DEAD_ROWS and dead > live and is_before(vacuumed_at, patience)):
            last = "never" if vacuumed_at is None else f"{vacuumed_at:%Y-%m-%d %H:%M} UTC"
            findings.append(
                warning(
                    "tables",
                    f"the table {name} has {dead:,} dead rows beside {live:,}, {size(bytes_)}; last vacuum: {last}",
                    "they take up space on disk and in memory",
                    f"see snapshots and autovacuum; then: vacuum fastpubsub.{name}",
                )
            )
    return findings or [ok("tables", f"{size(total)} with {dead_rows:,} dead rows")]


def is_before(moment: datetime | None, patience: float) -> bool:
    return moment is None or moment < datetime.now(UTC) - timedelta(seconds=patience)


async def examine_leases(database: DoctorConnection, patience: float) -> list[Finding]:
    ((now,),) = await database.ask("select pg_catalog.clock_timestamp()")
    for subscription, consumer, expires_at in await database.call("inspect_leases"):
        over = (now - expires_at).total_seconds()
        whose = f"that of consumer {printable(consumer)!r} in the subscription {subscription}"
        if over < 0 or over < patience:
            return [ok("leases", f"the first lease to end is {whose}, in {duration(-over)}")]
        return [
            warning(
                "leases",
                f"a lease expired {duration(over)} ago and was not released: {whose}",
                "its messages are not delivered again until it is released; a running server does this every second",
                "start a server, and check the logs of running ones; or: fastpubsub cleanup_stuck_messages",
            )
        ]
    return [ok("leases", "no consumer holds a message")]


async def examine_outbox(database: DoctorConnection, patience: float) -> list[Finding]:
    """Rows come and go: what counts is whether the first one goes."""
    deadline = time.monotonic() + min(patience, RELAY_SECONDS)
    ((waiting, first),) = await database.call("inspect_outbox", OUTBOX_ROWS)
    while first is not None and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        before = first
        ((waiting, first),) = await database.call("inspect_outbox", OUTBOX_ROWS)
        if first != before:
            break
    else:
        if first is not None:
            count = f"{waiting:,}" + (" or more" if waiting >= OUTBOX_ROWS else "")
            return [
                warning(
                    "outbox",
                    f"{count} messages published from SQL wait, and the first one is not moved",
                    "subscribers do not get them; a running server moves them within a second",
                    "start a server, and check the logs of running ones",
                )
            ]
    return [ok("outbox", f"{waiting:,} messages published from SQL wait to be moved")]


async def examine_delayed(database: DoctorConnection, patience: float) -> list[Finding]:
    ((waiting, held, overdue),) = await database.call("inspect_delayed", OUTBOX_ROWS)
    found = []
    if held:
        count = f"{held:,}" + (" or more" if held >= OUTBOX_ROWS else "")
        found.append(
            warning(
                "delayed",
                f"{count} delayed messages are held: they were overdue when a server came back after a long time",
                "after the restore of an old dump they may have been delivered already, or may do harm so late",
                "look at them with `fastpubsub delayed list TOPIC --state held`; then release, move or cancel them",
            )
        )
    if overdue > max(patience, RELAY_SECONDS):
        found.append(
            warning(
                "delayed",
                f"a delayed message is overdue for {duration(overdue)}",
                "subscribers do not get it; a running server publishes it within a second",
                "start a server, and check the logs of running ones",
            )
        )
    return found or [ok("delayed", f"{waiting:,} delayed messages wait for their time")]


async def examine_refused(database: DoctorConnection) -> list[Finding]:
    found = [Refusals(*row) for row in await database.call("count_refused_messages", OUTBOX_ROWS, SHOWN)]
    return [refused(one) for one in found] or [ok("refused", "no message from SQL was refused by a schema")]


class Refusals(NamedTuple):
    topic_id: str
    messages: int


def refused(one: Refusals) -> Finding:
    count = f"{one.messages:,} messages from SQL" if one.messages > 1 else "1 message from SQL"
    return warning(
        "refused",
        f"{count} did not match the schema of the topic {one.topic_id}",
        "subscribers do not get them; they are deleted after FASTPUBSUB_REFUSED_RETENTION_SECONDS",
        f"look at `fastpubsub refused list {one.topic_id}`; mend the schema or the application, and publish or purge "
        "them with `fastpubsub refused`",
    )


async def examine_schedules(database: DoctorConnection, patience: float) -> list[Finding]:
    ((active, paused, failing, overdue),) = await database.call("inspect_schedules")
    found = []
    if failing:
        found.append(
            warning(
                "schedules",
                f"{failing:,} schedules cannot publish",
                "their payloads do not match the schemas of their topics any more: their times come without a message",
                "`fastpubsub schedules list TOPIC` shows the problem; change the schedule, or the schema",
            )
        )
    if overdue > max(patience, RELAY_SECONDS):
        found.append(
            warning(
                "schedules",
                f"a schedule is overdue for {duration(overdue)}",
                "its message does not come; a running server publishes it within a second",
                "start a server, and check the logs of running ones",
            )
        )
    return found or [ok("schedules", f"{active:,} schedules are active, {paused:,} are paused")]


async def examine_subscriptions(database: DoctorConnection, patience: float) -> list[Finding]:
    retention = database.settings.cleanup_acked_messages_older_than_seconds
    found = gauges(await database.call("list_subscription_metrics_2", SUBSCRIPTIONS, retention))
    behind = sorted((one for one in found if one.ahead and is_behind(one, patience)), key=lambda one: -one.ahead)
    dead = sorted((one for one in found if one.dead), key=lambda one: -one.dead)
    held = sorted((one for one in found if one.held_keys), key=lambda one: -one.held_keys)
    ahead = sum(one.ahead + one.waiting for one in found)
    leased = sum(one.leased for one in found)
    return [
        *(backlog(one) for one in behind[:SHOWN]),
        *(dead_letters(one) for one in dead[:SHOWN]),
        *(held_keys(one) for one in held[:SHOWN]),
        ok("subscriptions", f"{len(found)} subscriptions: {ahead:,} messages to deliver, {leased:,} with consumers"),
    ]


def is_behind(one: SubscriptionGauges, patience: float) -> bool:
    return one.oldest_created_at is not None and is_before(one.oldest_created_at, patience)


def backlog(one: SubscriptionGauges) -> Finding:
    age = (datetime.now(UTC) - one.oldest_created_at).total_seconds() if one.oldest_created_at else 0
    why, step = "no consumer reads it, or the consumers are too slow", "start more consumers, seek to latest"
    if one.is_paused:
        why, step = "it is paused, and hands out nothing", f"POST /subscriptions/{one.subscription_id}/resume, purge it"
    return warning(
        "backlog",
        f"the subscription {one.subscription_id} is behind: {one.ahead:,} messages not delivered yet, the oldest for "
        f"{duration(age)}",
        f"{why}; the topic keeps all of these messages",
        f"{step}, or delete the subscription",
    )


def dead_letters(one: SubscriptionGauges) -> Finding:
    return warning(
        "dead_letters",
        f"the subscription {one.subscription_id} has {one.dead:,} dead letters",
        "they are not delivered any more, and stay until you reprocess or purge them",
        f"look at GET /subscriptions/{one.subscription_id}/dlq; then reprocess or purge them",
    )


def held_keys(one: SubscriptionGauges) -> Finding:
    held = "1 ordering key is held by a dead letter"
    if one.held_keys > 1:
        held = f"{one.held_keys:,} ordering keys are held by dead letters"
    return warning(
        "held_keys",
        f"{held} of the subscription {one.subscription_id}",
        "nothing more of such a key is delivered, and the topic keeps its messages from the first of them on",
        f"mend the cause; then reprocess or purge the dead letters of GET /subscriptions/{one.subscription_id}/dlq",
    )


async def examine_kept_messages(database: DoctorConnection, patience: float) -> list[Finding]:
    retention = database.settings.cleanup_acked_messages_older_than_seconds
    then = datetime.now(UTC) - timedelta(seconds=patience)
    kept = [Kept(*row) for row in await database.call("inspect_kept_messages", SHOWN, retention, then)]
    return [keeps(one) for one in kept] or [ok("kept", "no subscription keeps messages beyond the retention")]


class Kept(NamedTuple):
    topic_key: int
    topic_id: str
    subscription_id: str
    position: int
    created_at: datetime
    state: str
    messages: int
    bytes: int


def keeps(one: Kept) -> Finding:
    message = MessageIds(one.topic_key, one.created_at).at(one.position)
    cost = f"{one.messages:,} messages of the topic {one.topic_id}, about {size(one.bytes)}, beyond the retention"
    published = f"published at {one.created_at:%Y-%m-%d %H:%M} UTC"
    if one.state == "ahead":
        return warning(
            "kept",
            f"the subscription {one.subscription_id} has not read the messages {published} and later: it keeps {cost}",
            "a topic keeps every message that one of its subscriptions has not read",
            "start more consumers, seek to latest, or delete the subscription",
        )
    where = "waits for a retry" if one.state == "waiting" else "is held by a consumer"
    return warning(
        "kept",
        f"the message {message} of the subscription {one.subscription_id}, {published}, {where}: it keeps {cost}",
        "messages are deleted from the front only, so this one keeps all messages after it",
        "reject it, let its consumer finish, or reprocess it if it is a dead letter that holds its key; with a lower "
        "max_delivery_attempts such messages end earlier",
    )
