"""How a subscription is pushed: what is stored of it, and its secrets."""

import json
import logging
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import NotFound
from fastpubsub.models import NewPush
from fastpubsub.models.push import PushSignature
from fastpubsub.sealing import Sealer, Unreadable
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.subscriptions import get_subscription

logger = logging.getLogger(__name__)


def headers_use(subscription_id: str) -> str:
    """What the sealed headers are for."""
    return f"push headers {subscription_id}"


def secret_use(subscription_id: str) -> str:
    return f"push secret {subscription_id}"


def stored_push(new: NewPush, secret: str, sealer: Sealer, subscription_id: str) -> str:
    """As the procedures take it: the headers and the secret are sealed."""
    settings = new.model_dump(exclude={"headers"}) | {"header_names": list(new.headers)}
    sealed = {"secret": sealer.seal(secret.encode(), secret_use(subscription_id))}
    if new.headers:
        sealed["headers"] = sealer.seal(json.dumps(new.headers).encode(), headers_use(subscription_id))
    return json.dumps({"settings": settings} | {name: b64encode(value).decode() for name, value in sealed.items()})


async def trim_dispatchers(database: Database) -> None:
    """Forgets the processes that are gone."""
    await database.fetch_one("trim_dispatchers")


async def signature_of(database: Database, subscription_id: str) -> PushSignature:
    """Raises NotFound when the subscription is not pushed."""
    push = (await get_subscription(database, subscription_id)).push
    if push is None:
        raise NotFound(f'there is no subscription "{subscription_id}" that is pushed')
    signature: PushSignature = json.loads(push).get("signature", "hmac")
    return signature


async def require_push(database: Database, keys: SubscriptionKey, position: int | None, change: Change) -> None:
    """Raises AlreadyExists unless the subscription is pushed and its filter passes the message at `position`."""
    await database.fetch_one("require_push", *keys, position, change=change)


async def rotate_push_secret(
    database: Database, sealer: Sealer, subscription_id: str, secret: str, old_seconds: int, change: Change
) -> datetime | None:
    """Until when the previous one signs as well."""
    sealed = sealer.seal(secret.encode(), secret_use(subscription_id))
    (expires_at,) = await database.fetch_one("rotate_push_secret", subscription_id, sealed, old_seconds, change=change)
    until: datetime | None = expires_at
    return until


async def reseal_endpoints(database: Database, sealer: Sealer, endpoints: Sequence[Row]) -> None:
    """Seals with the first key what was sealed with another one, which can then be given up."""
    changed = [one for row in endpoints if (one := _resealed(row, sealer)) is not None]
    if not changed:
        return
    kinds = ("int8", "int8", "int8", "bytea", "bytea", "bytea")
    columns = [Array(kind, values) for kind, values in zip(kinds, zip(*changed, strict=True), strict=True)]
    (count,) = await database.fetch_one("reseal_endpoints", *columns)
    logger.info("endpoints are sealed with the first key now: count=%d", count)


def _resealed(endpoint: Row, sealer: Sealer) -> Row | None:
    """None when it is as it should be, or cannot be read."""
    topic_key, subscription_key, version, subscription_id, _, headers, *secrets = endpoint[:8]
    before = [(headers, headers_use(subscription_id)), *((secret, secret_use(subscription_id)) for secret in secrets)]
    try:
        after = [sealer.reseal(sealed, use) if sealed else None for sealed, use in before]
    except Unreadable:
        return None
    return None if after == [sealed for sealed, _ in before] else (topic_key, subscription_key, version, *after)
