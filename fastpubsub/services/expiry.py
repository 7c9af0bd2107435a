"""Deletes the subscriptions that nobody pulls, of those that have a time for it."""

import asyncio
import json
import logging

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.exceptions import AlreadyExists, FastpubsubError, NotFound
from fastpubsub.services.claiming import Claiming
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.surviving import Surviving
from fastpubsub.services.waiting_lines import WaitingLines

logger = logging.getLogger(__name__)

CLIENT_ID = "server"
"""Of what the server does by itself, in the audit."""

WRITE_SECONDS = 60.0
AGAIN_SECONDS = 5.0
"""In the first minute, when nothing was told, and after a failure; `expires_at` in SQL leaves time for both."""

_MOST = 100
"""In a pass."""


class Uses:
    """Tells of which subscriptions somebody wanted messages here: once a minute, and every 5 seconds in the first one.

    So a process that is killed within every minute has told of them, too.
    """

    def __init__(self, database: Database, claiming: Claiming, lines: WaitingLines) -> None:
        self._database = database
        self._claiming = claiming
        self._lines = lines

    async def run(self) -> None:
        """Runs until it is cancelled."""
        time = asyncio.get_running_loop().time
        often_until = time() + WRITE_SECONDS
        pause = AGAIN_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = AGAIN_SECONDS
            with Surviving(logger, "telling which subscriptions are used", logging.DEBUG):
                if await self.write() and time() >= often_until:
                    pause = WRITE_SECONDS

    async def write(self) -> bool:
        """Returns whether there was anything to tell."""
        claimed = self._claiming.take_claimed()
        used: list[SubscriptionKey] = sorted(claimed.union(self._lines.with_members()))
        if not used:
            return False
        try:
            await self._database.fetch_one(
                "record_uses",
                Array("int8", [keys.topic_key for keys in used]),
                Array("int8", [keys.subscription_key for keys in used]),
            )
        except FastpubsubError:
            self._claiming.put_back(claimed)
            raise
        return True


async def expire_subscriptions(database: Database) -> int:
    """How many were deleted. One that is used, changed or deleted meanwhile is left alone."""
    expired = 0
    known = await database.fetch_known("list_expired_subscriptions", _MOST, None)
    for topic_key, subscription_key, subscription_id, seconds in known.rows:
        body = json.dumps({"expire_after_seconds": seconds})
        change = Change(CLIENT_ID, None, "expire_subscription", "subscription", subscription_id, body)
        try:
            await database.fetch_one("expire_subscription", topic_key, subscription_key, change=change)
        except (AlreadyExists, NotFound):
            continue
        logger.warning(
            "a subscription expired and was deleted, because nobody pulled it: "
            "subscription_id=%s expire_after_seconds=%s",
            subscription_id,
            seconds,
        )
        expired += 1
    return expired
