from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.message_ids import MessageIds, parse_targets
from fastpubsub.services.directory import Directory, SubscriptionKey


@dataclass(frozen=True, slots=True)
class Letter:
    id: str
    created_at: datetime
    died_at: datetime
    attempts: int
    reason: str
    payload: bytes
    attributes: bytes | None
    ordering_key: str | None
    failures: bytes | None


class Wanted(NamedTuple):
    """Which dead letters: of exactly this reason, that died from a time on, and before another; None is any."""

    reason: str | None = None
    died_after: datetime | None = None
    died_before: datetime | None = None


async def list_dead_letters(
    database: Database,
    directory: Directory,
    subscription_id: str,
    wanted: Wanted,
    offset: int,
    after: int | None,
    limit: int,
    max_bytes: int,
) -> tuple[list[Letter], int | None]:
    """Those after a position, and the position after which the next page begins, None at the end."""

    async def list_(keys: SubscriptionKey) -> tuple[list[Letter], int | None]:
        *rows, end = await database.fetch_all("list_dead_letters_2", *keys, offset, limit, max_bytes, after, *wanted)
        return [Letter(MessageIds(keys.topic_key, row[1]).at(row[0]), *row[1:]) for row in rows], end[0]

    return await directory.subscriptions.use(subscription_id, list_)


async def reprocess_dead_letters(
    database: Database, directory: Directory, subscription_id: str, ids: Sequence[str], change: Change | None = None
) -> list[str]:
    """Returns the ids that go to consumers again."""
    return await _move("reprocess_dead_letters", database, directory, subscription_id, ids, change)


async def purge_dead_letters(
    database: Database, directory: Directory, subscription_id: str, ids: Sequence[str], change: Change | None = None
) -> list[str]:
    """The ids that are gone for good."""
    return await _move("purge_dead_letters", database, directory, subscription_id, ids, change)


async def _move(
    procedure: str,
    database: Database,
    directory: Directory,
    subscription_id: str,
    ids: Sequence[str],
    change: Change | None,
) -> list[str]:
    async def move(keys: SubscriptionKey) -> list[str]:
        singles = list(parse_targets(ids, keys.topic_key).singly())
        (moved,) = await database.fetch_one(
            procedure,
            *keys,
            Array("int8", [one.position for one in singles]),
            Array("timestamptz", [one.created_at for one in singles]),
            change=change,
        )
        found = set(moved)
        return [ids[one.place] for one in singles if one.position in found]

    return await directory.subscriptions.use(subscription_id, move)
