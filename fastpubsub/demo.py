"""A small shop for `fastpubsub dev --demo`: it publishes, consumes, fails and dies, so there is something to see."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

from fastpubsub.client import AlreadyExists, AsyncClient, BusError
from fastpubsub.client.requests import Request
from fastpubsub.models import Message

COUNTRIES = ["BR", "US", "DE", "JP", "IN"]
PRODUCTS = ["espresso beans", "filter paper", "hand grinder", "kettle", "mug"]
CARDS = ["visa", "mastercard", "elo"]
REASONS = ["card declined", "card declined", "unknown currency", "the bank did not answer within 3 s"]
ORDER = {
    "type": "object",
    "required": ["order", "country", "total"],
    "properties": {
        "order": {"type": "integer", "minimum": 1},
        "country": {"enum": COUNTRIES},
        "total": {"type": "number", "minimum": 0},
        "lines": {"type": "array", "items": {"type": "object", "required": ["product", "pieces"]}},
    },
}
TOPICS: dict[str, Any] = {"orders": ORDER, "payments": None, "shipments": None}
SUBSCRIPTIONS: list[dict[str, Any]] = [
    {"id": "billing", "topic_id": "orders", "backoff_min_seconds": 4, "max_delivery_attempts": 3},
    {"id": "warehouse", "topic_id": "orders", "filter": {"country": ["BR", "US", "DE"]}},
    {"id": "tax-report", "topic_id": "orders", "filter": {"Country": ["BR"]}},
    {"id": "newsletter", "topic_id": "orders"},
    {"id": "fraud-check", "topic_id": "payments", "backoff_min_seconds": 2, "max_delivery_attempts": 2},
    {"id": "tracking", "topic_id": "shipments", "ack_deadline_seconds": 15},
]
"""`tax-report` gets nothing, because the field is `country`; `newsletter` has no consumer, and falls behind."""

PULLED_AT_ONCE = 5
WAIT_SECONDS = 10
BREAK_SECONDS = 1.0

Work = Callable[[AsyncClient, Message, random.Random], Awaitable[str | None]]
"""Returns why it failed; None when it did not."""


async def run(url: str, client_id: str | None = None, secret: str | None = None, *, seed: int | None = None) -> None:
    """Opens the shop, and runs it until it is cancelled."""
    luck = random.Random(seed)  # noqa: S311 - it is a play
    async with AsyncClient(url, client_id, secret) as bus:
        await open_shop(bus)
        async with asyncio.TaskGroup() as shop:
            shop.create_task(sell(bus, luck))
            for consumer in CONSUMERS:
                shop.create_task(consume(bus, *consumer, luck))


async def open_shop(bus: AsyncClient) -> None:
    wanted = [("/topics", {"id": topic_id, "schema": schema}) for topic_id, schema in TOPICS.items()]
    wanted += [("/subscriptions", subscription) for subscription in SUBSCRIPTIONS]
    for path, body in wanted:
        try:
            await bus.send(Request("POST", path, bytes, json.dumps(body).encode()))
        except AlreadyExists:
            continue


async def sell(bus: AsyncClient, luck: random.Random) -> None:
    number = 1000
    while True:
        number += 1
        try:
            await bus.publish("orders", order(number, luck), attributes={"source": luck.choice(["web", "app"])})
        except BusError:
            await asyncio.sleep(BREAK_SECONDS)
        await asyncio.sleep(luck.expovariate(4))


def order(number: int, luck: random.Random) -> dict[str, Any]:
    lines = [{"product": luck.choice(PRODUCTS), "pieces": luck.randint(1, 4)} for _ in range(luck.randint(1, 3))]
    return {"order": number, "country": luck.choice(COUNTRIES), "total": round(luck.uniform(8, 240), 2), "lines": lines}


async def bill(bus: AsyncClient, message: Message, luck: random.Random) -> str | None:
    if luck.random() < 0.08:
        return luck.choice(REASONS)
    card = luck.choice(CARDS)
    await bus.publish("payments", {**_about(message), "card": card, "amount": message.payload["total"]})
    return None


async def pack(bus: AsyncClient, message: Message, luck: random.Random) -> str | None:
    await bus.publish("shipments", {**_about(message), "parcels": luck.randint(1, 2)})
    return None


async def check(_bus: AsyncClient, _message: Message, luck: random.Random) -> str | None:
    return "score above 0.9" if luck.random() < 0.03 else None


async def track(_bus: AsyncClient, _message: Message, _luck: random.Random) -> str | None:
    return None


def _about(message: Message) -> dict[str, Any]:
    return {name: message.payload[name] for name in ("order", "country")}


CONSUMERS: list[tuple[str, str, Work, float]] = [
    ("billing", "billing-1", bill, 0),
    ("billing", "billing-2", bill, 0),
    ("warehouse", "packer-ana", pack, 0.4),
    ("warehouse", "packer-ben", pack, 0.4),
    ("fraud-check", "fraud-1", check, 0),
    ("tracking", "tracker-1", track, 0.2),
]
"""The last column is how many seconds a message takes at most."""


async def consume(
    bus: AsyncClient, subscription_id: str, consumer_id: str, work: Work, seconds: float, luck: random.Random
) -> None:
    """Now and then the consumer dies with messages in its hands; others get them after the deadline."""
    while True:
        try:
            messages = await bus.pull(
                subscription_id, consumer_id=consumer_id, batch_size=PULLED_AT_ONCE, wait_seconds=WAIT_SECONDS
            )
            if luck.random() < 0.01:
                continue
            for message in messages:
                await asyncio.sleep(luck.uniform(0, seconds))
                await settle(bus, message, await work(bus, message, luck), luck)
        except BusError:
            await asyncio.sleep(BREAK_SECONDS)


async def settle(bus: AsyncClient, message: Message, failure: str | None, luck: random.Random) -> None:
    if failure is None:
        await bus.ack(message.subscription_id, [message.ack_id])
    elif luck.random() < 0.5:
        await bus.reject(message.subscription_id, [message.ack_id], reason=failure)
    else:
        await bus.nack(message.subscription_id, [message.ack_id])
