"""Creates the topics and subscriptions that an application declares, and brings their settings in line."""

import logging
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias

from fastpubsub.client import requests
from fastpubsub.client.connections import AsyncConnection
from fastpubsub.client.errors import AlreadyExists, NotFound
from fastpubsub.client.existing import CONFLICT, KEPT, changes, differences_of, sentence, text
from fastpubsub.client.narrowing import Filter, both
from fastpubsub.client.topics import Topic

logger = logging.getLogger("fastpubsub.client")

ATTEMPTS = 5
"""Of bringing a schedule in line, which other processes do at the same moment."""

Start: TypeAlias = Literal["latest", "earliest"] | datetime


@dataclass(frozen=True, slots=True)
class Declaration:
    """A subscription of a topic, by arguments of `create_subscription`. What is not given may be anything."""

    subscription_id: str
    topic: Topic[Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ScheduleDeclaration:
    """A schedule of a topic, by arguments of `create_schedule`."""

    schedule_id: str
    topic_id: str
    settings: Mapping[str, Any]


async def declare(
    client: AsyncConnection,
    topics: Iterable[Topic[Any]],
    subscriptions: Iterable[Declaration],
    schedules: Iterable[ScheduleDeclaration] = (),
) -> None:
    """Raises `AlreadyExists` when bringing something in line would lose messages."""
    for topic in topics:
        await _declare_topic(client, topic)
    for subscription in subscriptions:
        await _declare_subscription(client, subscription)
    for schedule in schedules:
        await _declare_schedule(client, schedule)


async def _declare_topic(client: AsyncConnection, topic: Topic[Any]) -> None:
    wanted = topic.retention_seconds
    try:
        there = await client.send(requests.get_topic(topic.id))
    except NotFound:
        create = requests.create_topic(topic.id, retention_seconds=wanted, schema=topic.schema, exist_ok=True)
        await client.send(create)
        return
    await _declare_retention(client, topic, there.retention_seconds)
    if topic.schema is not None and topic.schema != there.payload_schema:
        logger.warning("topic %s gets another schema: publishers of the present one may be refused", topic.id)
        await client.send(requests.update_topic(topic.id, schema=topic.schema))


async def _declare_retention(client: AsyncConnection, topic: Topic[Any], found: int | None) -> None:
    wanted = topic.retention_seconds
    if wanted is None or wanted == found:
        return
    if found is not None and wanted < found:
        raise _refusal(
            f"topic {topic.id} keeps settled messages for {found} seconds; the {wanted} that are declared would delete "
            f"some now. Declare {found}, or run: fastpubsub topics update {topic.id} --retention-seconds {wanted}"
        )
    logger.info("topic %s changes: retention_seconds from %s to %d", topic.id, found, wanted)
    await client.send(requests.update_topic(topic.id, retention_seconds=wanted))


async def _declare_subscription(client: AsyncConnection, wanted: Declaration) -> None:
    id_, topic_id = wanted.subscription_id, wanted.topic.id
    create = requests.create_subscription(id_, topic_id, **wanted.settings, exist_ok=True)
    as_sent: Any = requests.get_subscription(id_)
    try:
        found: bytes = await client.send(replace(as_sent, read=bytes))
    except NotFound:
        await client.send(create)
        return
    differences = differences_of(create.content or b"", found)
    if differences.keys() & KEPT:
        raise _refusal(
            f"subscription {id_} exists, and {sentence(differences)}. Give the subscriber another subscription, or "
            f"delete this one with its messages: fastpubsub subscriptions delete {id_}"
        )
    if "filter" in differences:
        await _keep_what_waits(client, id_, *differences["filter"])
    if differences:
        logger.info("subscription %s changes: %s", id_, changes(differences))
        await client.send(requests.update_subscription(id_, **{name: wanted.settings[name] for name in differences}))


async def _declare_schedule(client: AsyncConnection, wanted: ScheduleDeclaration) -> None:
    """Once more when another process does the same at the same moment."""
    for left in reversed(range(ATTEMPTS)):
        try:
            await _align_schedule(client, wanted)
        except AlreadyExists:
            if not left:
                raise
        else:
            return


async def _align_schedule(client: AsyncConnection, wanted: ScheduleDeclaration) -> None:
    id_, topic_id = wanted.schedule_id, wanted.topic_id
    create = requests.create_schedule(topic_id, id_, **wanted.settings)
    as_sent: Any = requests.get_schedule(topic_id, id_)
    try:
        found: bytes = await client.send(replace(as_sent, read=bytes))
    except NotFound:
        await client.send(create)
        return
    if differences := differences_of(create.content or b"", found):
        logger.info("schedule %s of %s changes: %s", id_, topic_id, changes(differences))
        await client.send(requests.update_schedule(topic_id, id_, **wanted.settings))


async def _keep_what_waits(
    client: AsyncConnection, subscription_id: str, present: Filter | None, wanted: Filter | None
) -> None:
    """Messages that wait for their first delivery, and that another filter keeps out, would never be delivered."""
    if not wanted:
        return
    narrowed = both(present or {}, wanted)
    tested = await client.send(requests.test_filter(subscription_id, narrowed or wanted, last=1))
    waiting, kept = tested.ahead_now or 0, (tested.ahead_after or 0) if narrowed else 0
    if kept < waiting:
        raise _refusal(
            f"subscription {subscription_id} has {waiting} messages that wait, and the declared filter would keep out "
            f"{'about ' * bool(tested.is_estimated)}{waiting - kept} of them. Declare it again when they are done, or "
            f"run: fastpubsub subscriptions update {subscription_id} --filter {shlex.quote(text(wanted))}"
        )


def _refusal(sentences: str) -> AlreadyExists:
    return AlreadyExists(CONFLICT, sentences)
