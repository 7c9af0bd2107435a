"""Requests that somebody sends to an endpoint by hand: no deliveries, so nothing is leased, settled or remembered."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

from fastpubsub.config import Settings
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.exceptions import AlreadyExists, InvalidRequest, NotFound, TooManyRequests
from fastpubsub.models import PushTested
from fastpubsub.push.answers import PushAnswer
from fastpubsub.push.dispatcher import Dispatcher
from fastpubsub.push.endpoints import Endpoint, allowed_place, opened
from fastpubsub.push.failures import PushFailed
from fastpubsub.push.formats import PushedMessage
from fastpubsub.push.outcomes import refusal
from fastpubsub.push.requests import ORIGIN
from fastpubsub.sealing import Unreadable
from fastpubsub.services import explaining, pushing
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.login_attempts import Allowance

PER_MINUTE = 30
"""Requests to one endpoint by this process, as many of them at once."""

MAX_AT_ONCE = 10
"""Requests of this process that may be on their way, to all endpoints."""

MAX_TO_ONE = 2
"""Of them to one endpoint: one that does not answer leaves places to the others."""

LONGEST_SECONDS = 30.0
"""That somebody waits for an answer, however patient the subscription is."""

TEST = {"fastpubsub-test": "true"}
RESENT = {"fastpubsub-resent": "true"}


class Trials:
    def __init__(
        self,
        database: Database,
        directory: Directory,
        settings: Settings,
        dispatcher: Dispatcher,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._directory = directory
        self._settings = settings
        self._dispatcher = dispatcher
        self._allowance = Allowance(PER_MINUTE, clock)
        self._sending: Counter[str] = Counter()

    async def test(self, subscription_id: str, payload: bytes, change: Change) -> PushTested:
        """Sends this payload, marked as a test, with an id that no message has."""
        message = PushedMessage(f"test-{uuid4()}", subscription_id, 1, datetime.now(UTC), payload, None)
        return await self._send(subscription_id, message, TEST, change)

    async def resend(self, subscription_id: str, message_id: str, change: Change) -> PushTested:
        """Sends a message of the topic that is kept, under its own id and marked."""
        found = await explaining.find_message(self._database, message_id)
        if found.payload is None:
            raise NotFound(f"message {message_id} is no longer kept")
        message = PushedMessage(
            message_id.lower(),
            subscription_id,
            1,
            found.created_at,
            found.payload,
            found.attributes,
            found.ordering_key,
            explaining.locate(message_id).position,
        )
        return await self._send(subscription_id, message, RESENT, change)

    async def _send(
        self, subscription_id: str, message: PushedMessage, marks: Mapping[str, str], change: Change
    ) -> PushTested:
        with self._place(subscription_id):
            endpoint = await self._directory.subscriptions.use(
                subscription_id, lambda keys: self._endpoint(keys, message, change)
            )
            started = asyncio.get_running_loop().time()
            status, said = await self._answer(endpoint, message, marks)
            seconds = asyncio.get_running_loop().time() - started
        return PushTested(message_id=message.id, status=status, milliseconds=int(seconds * 1000), said=said)

    @contextmanager
    def _place(self, subscription_id: str) -> Iterator[None]:
        seconds = self._allowance.wait_seconds(subscription_id)
        if self._sending[subscription_id] >= MAX_TO_ONE:
            raise TooManyRequests(
                f"{MAX_TO_ONE} requests that were sent by hand wait for an answer of this endpoint; try again when it "
                "has answered",
                1,
            )
        if seconds > 0 or self._sending.total() >= MAX_AT_ONCE:
            raise TooManyRequests("too many requests were sent by hand; try again later", max(1, math.ceil(seconds)))
        self._allowance.spend(subscription_id)
        self._sending[subscription_id] += 1
        try:
            yield
        finally:
            self._sending -= Counter([subscription_id])

    async def _endpoint(self, keys: SubscriptionKey, message: PushedMessage, change: Change) -> Endpoint:
        """Raises AlreadyExists when there is none, and InvalidRequest when this server would not push there."""
        sealer = self._dispatcher.sealer
        if message.position and explaining.locate(message.id).topic_key != keys.topic_key:
            raise InvalidRequest(
                f'message {message.id} is not of the topic that subscription "{message.subscription_id}" reads'
            )
        await pushing.require_push(self._database, keys, message.position or None, change)
        rows = await self._database.fetch_all(
            "list_endpoints", Array("int8", [keys.topic_key]), Array("int8", [keys.subscription_key])
        )
        if not rows:
            raise AlreadyExists("the subscription is not pushed any more")
        try:
            endpoint = opened(rows[0], sealer, asyncio.get_running_loop().time())
        except Unreadable:
            raise InvalidRequest("this server does not have the key that the secrets of push are sealed with") from None
        allowed_place(endpoint.url, self._settings)
        return endpoint

    async def _answer(
        self, endpoint: Endpoint, message: PushedMessage, marks: Mapping[str, str]
    ) -> tuple[int | None, str]:
        """The status, and the beginning of the answer; or None, and why there was none."""
        wire = self._dispatcher.wire_to(endpoint)
        seconds = min(endpoint.timeout_seconds, LONGEST_SECONDS)
        try:
            if endpoint.is_asked_first:
                asked = await wire.send(endpoint.question(), seconds)
                if (refused := refusal(asked, ORIGIN)) is not None:
                    return asked.status, refused
            now = asyncio.get_running_loop().time()
            answer: PushAnswer = await wire.send(endpoint.request(message, int(time.time()), now, marks), seconds)
        except PushFailed as error:
            return None, str(error)
        finally:
            wire.close()
        return answer.status, answer.text
