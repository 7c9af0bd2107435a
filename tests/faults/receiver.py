"""The service that subscriptions are pushed to. It writes down what it gets and what it answers, as a consumer would.

Nobody tells it what became of its answer, so each is an ack, or a nack, of unknown outcome.
"""

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastpubsub.client.webhooks import InvalidWebhook, verify
from tests.faults.history import Kind, Number
from tests.faults.plan import DEADLINE_SECONDS
from tests.push.endpoint import OK, Endpoint, Received, Speak, answer

if TYPE_CHECKING:
    from tests.faults.load import Load


@dataclass(frozen=True)
class Request:
    """A message that was pushed, as far as the history is concerned: a delivery with an ack id of its own."""

    receiver: "Receiver"
    who: str
    subscription: str
    number: Number

    def acked(self) -> None:
        """To be called before anybody can know of it."""
        load = self.receiver.load
        if self.number not in self.receiver.served[self.subscription]:
            self.receiver.served[self.subscription].add(self.number)
            load.acked[self.subscription] += 1
        self._ended("acks")

    def failed(self) -> None:
        self._ended("nacks")

    def _ended(self, op: str) -> None:
        history = self.receiver.load.history
        history.add(self.who, Kind.INVOKE, op, subscription=self.subscription, ids=[self.who])
        history.add(self.who, Kind.UNKNOWN, op, status=200)


Misbehavior = Callable[[Request], bytes | Speak]


class Receiver:
    def __init__(self, load: "Load") -> None:
        self.load = load
        self.random = random.Random(f"{load.seed} receiver")
        self.endpoint = Endpoint()
        self.endpoint.answers = self._answer
        self._refusing = {one.name for one in load.plan.subscriptions if one.refuses_poison}
        self.secrets: dict[str, str] = {}
        """By subscription."""
        self.served: dict[str, set[Number]] = defaultdict(set)
        self.misbehavior: Misbehavior | None = None
        self.clock_off = 0.0
        """Seconds by which its clock is wrong."""
        self.mistreated = 0
        """Requests that did not get what they deserved."""

    def _answer(self, received: Received) -> bytes | Speak:
        self.endpoint.received.clear()  # the history has them
        request = self._noted(received)
        if not self._is_genuine(received, request.subscription):
            self.mistreated += 1
            return self._refused(request, 401)
        if request.number.is_poison and request.subscription in self._refusing:
            return self._refused(request, 422)
        if self.misbehavior is not None:
            self.mistreated += 1
            return self.misbehavior(request)
        request.acked()
        return OK

    def _is_genuine(self, received: Received, subscription: str) -> bool:
        try:
            verify(received.headers, received.body, self.secrets[subscription], now=time.time() + self.clock_off)
        except InvalidWebhook:
            return False
        return True

    def _refused(self, request: Request, status: int) -> bytes:
        request.failed()
        return answer(status)

    def _noted(self, received: Received) -> Request:
        headers = received.headers
        number = Number(*json.loads(received.body)["number"])
        who = f"request{len(self.load.history.events)}"
        request = Request(self, who, headers["fastpubsub-subscription"], number)
        expires = time.time() + DEADLINE_SECONDS  # or later: nobody else may get it before
        attempt = int(headers["fastpubsub-attempt"])
        message = [list(number), headers["webhook-id"], who, attempt, expires]
        self.load.history.add(who, Kind.INVOKE, "pull", subscription=request.subscription)
        self.load.history.add(who, Kind.OK, "pull", status=200, messages=[message])
        return request
