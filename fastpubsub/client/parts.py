"""One topic as several, for more messages than one topic can take."""

from hashlib import sha256

MAX_PARTS = 10_000


def part_of(topic_id: str, key: str, parts: int) -> str:
    """Returns the topic for messages of this key, of those that `parts_of` lists: always the same one.

    Messages with one key keep their order, because they are all in one topic: publish them there one after the other.
    Another part moves one key in n, where n is the new number of parts, to the new part. Raises `ValueError` for less
    than one part or more than 10,000.
    """
    _check(parts)
    return f"{topic_id}.{_jump(int.from_bytes(sha256(key.encode()).digest()[:8], 'big'), parts)}"


def parts_of(topic_id: str, parts: int) -> list[str]:
    """Returns the topics that `part_of` chooses from, to create and to subscribe to: `orders.0`, `orders.1`, …"""
    _check(parts)
    return [f"{topic_id}.{number}" for number in range(parts)]


def _check(parts: int) -> None:
    if not 1 <= parts <= MAX_PARTS:
        raise ValueError(f"a topic has 1 to {MAX_PARTS:,} parts, not {parts}")


def _jump(key: int, buckets: int) -> int:
    """Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014."""
    bucket, following = -1, 0
    while following < buckets:
        bucket = following
        key = (key * 2862933555777941757 + 1) & 0xFFFFFFFFFFFFFFFF
        following = int((bucket + 1) * (1 << 31) / ((key >> 33) + 1))
    return bucket
