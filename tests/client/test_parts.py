"""One topic as several: where a key goes, and that its order holds."""

import asyncio
import random
from collections import Counter, defaultdict

import pytest

from fastpubsub.client import AsyncClient, part_of, parts_of
from fastpubsub.client.parts import _jump
from tests.lasting import Last

KEYS = [f"customer-{number}" for number in range(5000)]


def test_where_a_key_goes_never_changes() -> None:
    """Messages are in these topics: another answer would break their order."""
    found = [part_of("orders", key, 8) for key in ("customer-1", "customer-2", "customer-3", "", "Zoë")]
    assert found == ["orders.2", "orders.2", "orders.4", "orders.5", "orders.4"]


@pytest.mark.parametrize(
    ("key", "buckets", "bucket"), [(1, 1, 0), (42, 57, 43), (0xDEAD10CC, 666, 361), (256, 1024, 520)]
)
def test_the_published_values_of_the_hash(key: int, buckets: int, bucket: int) -> None:
    assert _jump(key, buckets) == bucket


def test_parts_get_about_the_same() -> None:
    counts = Counter(part_of("orders", key, 8) for key in KEYS)
    assert sorted(counts) == parts_of("orders", 8)
    assert max(counts.values()) < 1.2 * min(counts.values())


def test_one_part_more_moves_keys_to_the_new_one_only() -> None:
    moved = [key for key in KEYS if part_of("orders", key, 8) != part_of("orders", key, 9)]
    assert {part_of("orders", key, 9) for key in moved} == {"orders.8"}
    assert len(KEYS) / 9 * 0.8 < len(moved) < len(KEYS) / 9 * 1.2


@pytest.mark.parametrize("parts", [0, -1, 10_001])
def test_how_many_parts_there_can_be(parts: int) -> None:
    for call in (lambda: part_of("orders", "k", parts), lambda: parts_of("orders", parts)):
        with pytest.raises(ValueError, match="a topic has 1 to 10,000 parts, not"):
            call()


async def test_each_key_keeps_its_order(lasting_server: Last) -> None:
    """Several publishers, each with keys of its own, and a consumer of each part."""
    topics = parts_of("orders", 3)
    async with AsyncClient(lasting_server().base_url) as bus:
        for topic in topics:
            await bus.create_topic(topic)
            await bus.create_subscription(topic, topic_id=topic)

        async def publish(keys: list[str]) -> None:
            for number in range(20):
                for key in random.sample(keys, len(keys)):
                    await bus.publish(part_of("orders", key, len(topics)), {"key": key, "n": number}, ordering_key=key)

        await asyncio.gather(*(publish(KEYS[first : first + 4]) for first in range(0, 12, 4)))
        seen: dict[str, list[int]] = defaultdict(list)
        for topic in topics:
            while messages := await bus.pull(topic, consumer_id="one", batch_size=100):
                for message in messages:
                    seen[message.payload["key"]].append(message.payload["n"])
    assert seen == {key: list(range(20)) for key in KEYS[:12]}
