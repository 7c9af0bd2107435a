"""The audit log: who changed what, and when."""

from datetime import datetime
from typing import NamedTuple

from fastpubsub.database.calls import Database
from fastpubsub.exceptions import InvalidRequest

TRIM_CHUNK = 1000


class RecordedChange(NamedTuple):
    """`body` is the JSON of the request; None when it had none."""

    key: int
    at: datetime
    client_id: str
    request_id: str | None
    action: str
    object: str
    object_id: str
    body: bytes | None


class Wanted(NamedTuple):
    """Which changes; None for all."""

    object: str | None
    object_id: str | None
    client_id: str | None
    after: datetime | None
    before: datetime | None


async def list_changes(
    database: Database, wanted: Wanted, page_token: str | None, limit: int
) -> tuple[list[RecordedChange], str | None]:
    """Newest first, and the token of the next page."""
    rows = await database.fetch_all("list_changes", *wanted, _key(page_token), limit + 1)
    found = [RecordedChange(*row) for row in rows]
    return found[:limit], str(found[limit - 1].key) if len(found) > limit else None


async def trim_changes(database: Database, older_than_seconds: int) -> int:
    trimmed = 0
    while chunk := (await database.fetch_one("trim_changes", older_than_seconds, TRIM_CHUNK))[0]:
        trimmed += chunk
    return trimmed


def _key(page_token: str | None) -> int | None:
    if page_token is None:
        return None
    if not page_token.isascii() or not page_token.isdecimal() or len(page_token) > 18:
        raise InvalidRequest("page_token is not one that an answer had; leave it out to begin with the first page")
    return int(page_token)
