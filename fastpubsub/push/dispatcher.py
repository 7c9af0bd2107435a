"""Which subscriptions this process pushes: each is held by one process at a time, and they share them evenly."""

import asyncio
import json
import logging
import secrets
from contextlib import suppress

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.push.endpoints import Endpoint, allowed_place, opened
from fastpubsub.push.failures import PushFailed, Refused
from fastpubsub.push.pacing import Gate
from fastpubsub.push.pusher import Means, Pusher
from fastpubsub.push.resolver import LookUp, Resolver, look_up
from fastpubsub.push.tls import Tls
from fastpubsub.push.wire import Wire
from fastpubsub.sealing import Sealer, Unreadable
from fastpubsub.services.breakers import Breakers, BreakerState
from fastpubsub.services.claiming import Claiming
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.push_attempts import PushAttempts
from fastpubsub.services.pushing import reseal_endpoints
from fastpubsub.services.settling import Settling
from fastpubsub.services.subscriptions import pause_subscription
from fastpubsub.services.surviving import Surviving
from fastpubsub.services.wakeups import Wakeups
from fastpubsub.tasks import Tasks

logger = logging.getLogger(__name__)

HOLD_SECONDS = 3.0
"""Between two calls that say that this process lives; after five of them another one pushes instead."""

CLOSE_SECONDS = 5.0
WRITE_SECONDS = 1.0
"""Between two calls that write what became of pushes."""

CLIENT_ID = "push"
"""In the audit."""


class Dispatcher:
    def __init__(
        self,
        database: Database,
        settings: Settings,
        claiming: Claiming,
        settling: Settling,
        counters: Counters,
        wakeups: Wakeups,
        per_second: int | None,
        find: LookUp = look_up,
    ) -> None:
        self._database = database
        self._settings = settings
        self._wakeups = wakeups
        self._process = secrets.randbits(63)
        self._sealer = Sealer(settings.push_keys())
        self._resolver = Resolver(settings.push_networks(), find)
        self._attempts = PushAttempts(database, settings.push_attempts_retention_seconds)
        self._breakers = Breakers(database, self._process)
        self._means = Means(
            claiming,
            settling,
            counters,
            self._attempts,
            self._breakers,
            self._resolver,
            Gate(settings.push_max_in_flight, per_second),
            Tls(settings.push_certificates_folder),
            f"push:{self._process:x}",
            self._pause,
        )
        self._running: dict[SubscriptionKey, tuple[int, asyncio.Task[None]]] = {}
        self._has_held = False
        self._unusable: set[int] = set()
        self._ending = Tasks()
        self._wanted = asyncio.Event()
        self._pusher = pusher_class(settings)
        self._is_enabled = settings.push_enabled and bool(settings.push_keys())

    def look(self) -> None:
        """An endpoint has changed."""
        self._wanted.set()

    @property
    def sealer(self) -> Sealer:
        """Raises InvalidRequest when the server has no key for it."""
        if not self._settings.push_keys():
            raise InvalidRequest(
                "this server pushes nothing, for it has no key for secrets; set FASTPUBSUB_PUSH_SECRET_KEY"
            )
        return self._sealer

    def wire_to(self, endpoint: Endpoint) -> Wire:
        """Connections of its own, made where this process may push; whoever asks for them closes them."""
        return Wire(endpoint.place.origin, self._means.resolver, self._means.tls)

    async def require(self, url: str) -> None:
        """Raises InvalidRequest when this server would not push there."""
        place = allowed_place(url, self._settings)
        try:
            await self._resolver.addresses(place.origin.host)
        except Refused as error:
            raise InvalidRequest(f"the endpoint of push is refused: {error}") from None
        except PushFailed as error:
            raise InvalidRequest(f"the endpoint of push cannot be reached: {error}") from None

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._share())
            group.create_task(self._write())

    async def _share(self) -> None:
        try:
            while self._is_enabled:
                with Surviving(logger, "sharing the endpoints"):
                    await self._hold()
                await self._until_wanted()
        finally:
            self._stop_all()

    async def _write(self) -> None:
        while self._is_enabled:
            await asyncio.sleep(WRITE_SECONDS)
            await self._write_once()

    async def _write_once(self) -> None:
        now = asyncio.get_running_loop().time()
        await self._attempts.write(now)
        await self._breakers.write(now)

    async def close(self) -> None:
        """Ends what is on its way, and lets other processes go on at once."""
        self._is_enabled = False
        self._stop_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._ending.finish()
        self._ending.cancel()
        await self._ending.finish()
        self._resolver.close()
        await self._write_once()
        if self._has_held:
            with Surviving(logger, "giving up the endpoints", logging.DEBUG):
                await self._database.fetch_one("release_endpoints", self._process)

    async def _until_wanted(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(HOLD_SECONDS):
                await self._wanted.wait()
        self._wanted.clear()

    async def _hold(self) -> None:
        rows = await self._database.fetch_all("hold_endpoints", self._process)
        self._has_held |= bool(rows)
        held = {SubscriptionKey(topic, subscription): version for topic, subscription, version in rows}
        for keys, (version, task) in list(self._running.items()):
            if held.get(keys) != version or task.done():
                self._stop(keys)
        await self._start([keys for keys in held if keys not in self._running])

    async def _start(self, new: list[SubscriptionKey]) -> None:
        if not new or not self._is_enabled:
            return
        topics, subscriptions = zip(*new, strict=True)
        rows = await self._database.fetch_all("list_endpoints", Array("int8", topics), Array("int8", subscriptions))
        with Surviving(logger, "sealing endpoints anew"):
            await reseal_endpoints(self._database, self._sealer, rows)
        now = asyncio.get_running_loop().time()
        for row in rows:
            if (endpoint := self._opened(row, now)) is not None:
                self._running[endpoint.keys] = (endpoint.version, asyncio.create_task(self._push(endpoint)))

    def _opened(self, row: Row, now: float) -> Endpoint | None:
        """None of what this process cannot push: the log says so once, the status as long as it is so."""
        try:
            endpoint = opened(row, self._sealer, now)
            allowed_place(endpoint.url, self._settings)
        except (Unreadable, InvalidRequest) as error:
            if row[2] not in self._unusable:
                logger.warning("an endpoint cannot be used here: %s: subscription_id=%s", error, row[3])
            self._unusable.add(row[2])
            self._breakers.note(SubscriptionKey(*row[:2]), BreakerState(1, now + HOLD_SECONDS, f"no push: {error}"))
            return None
        return endpoint

    async def _push(self, endpoint: Endpoint) -> None:
        pusher = self._pusher(endpoint, self._means)
        try:
            await pusher.run()
        finally:
            self._ending.start(pusher.close())

    def _stop(self, keys: SubscriptionKey) -> None:
        _, task = self._running.pop(keys)
        task.cancel()
        self._ending.hold(task)

    def _stop_all(self) -> None:
        for keys in list(self._running):
            self._stop(keys)

    async def _pause(self, subscription_id: str, reason: str) -> None:
        logger.error("a subscription is paused, because %s: subscription_id=%s", reason, subscription_id)
        change = Change(
            CLIENT_ID, None, "pause_subscription", "subscription", subscription_id, json.dumps({"reason": reason})
        )
        with Surviving(logger, "pausing a subscription"):
            await pause_subscription(self._database, subscription_id, is_paused=True, change=change)


def pusher_class(settings: Settings) -> type[Pusher]:
    if settings.traces_enabled:
        from fastpubsub.push.traced import TracedPusher

        return TracedPusher
    return Pusher
