"""Pulls that wait until there is something to pull."""

import asyncio
import sys

from fastpubsub.counters import Counters
from fastpubsub.exceptions import NotFound
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.lines import Line
from fastpubsub.services.messages import Claim, Messages
from fastpubsub.services.wakeups import Wakeups


class Consumers:
    def __init__(self, messages: Messages, directory: Directory, wakeups: Wakeups, counters: Counters) -> None:
        self._messages = messages
        self._directory = directory
        self._wakeups = wakeups
        self._counters = counters

    async def pull(self, subscription_id: str, limit: int, consumer_id: str, seconds: float | None) -> Claim:
        """Empty when the time is over, or when the server stops. Whoever finds others waiting waits behind them."""
        until = None if seconds is None else asyncio.get_running_loop().time() + seconds
        woken = False
        while True:
            keys = await self._directory.subscriptions.key(subscription_id)
            with self._wakeups.lines.join(keys) as line:
                if woken or not line.is_waiting:
                    claim = await self._claim(line, subscription_id, limit, consumer_id)
                    if claim.positions:
                        return claim
                    if claim.keys != keys:
                        continue
                with self._counters.waiting.track_inprogress():
                    woken = not self._wakeups.lines.ended and await line.wait(limit, until)
                if not woken:
                    return nothing(keys)

    async def _claim(self, line: Line, subscription_id: str, limit: int, consumer_id: str) -> Claim:
        line.begin_claim()
        try:
            claim = await self._messages.pull(subscription_id, limit, consumer_id)
        except asyncio.CancelledError:
            line.wake(limit)
            raise
        except NotFound:
            line.wake(sys.maxsize)
            raise
        if len(claim.positions) >= limit:
            line.wake(1)
        return claim


def nothing(keys: SubscriptionKey) -> Claim:
    return Claim(keys, 0, None, [], [], [], [], [], False)
