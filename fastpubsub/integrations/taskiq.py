"""A broker of taskiq over the bus: a task is a message of a topic, and the workers are consumers of a subscription.

    from fastpubsub.integrations.taskiq import BusBroker, BusResults

    broker = BusBroker("http://localhost:8000").with_result_backend(BusResults("http://localhost:8000"))

    @broker.task
    async def resize(image_id: int) -> None: ...

`taskiq worker tasks:broker` runs the tasks.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
from taskiq import AckableMessage, AsyncBroker, BrokerMessage

from fastpubsub.client import AsyncClient, Delivery, Topic
from fastpubsub.client.declaring import Declaration, declare
from fastpubsub.client.iteration import iterate
from fastpubsub.client.leases import Leases
from fastpubsub.integrations.taskiq_payloads import message_of, payload_of
from fastpubsub.integrations.taskiq_results import BusResults, ResultMissing

__all__ = ["BusBroker", "BusResults", "ResultMissing"]

DELAY = "delay"
"""The label that other brokers of taskiq take, too."""


class BusBroker(AsyncBroker):
    """Publishes tasks to a topic and takes them from a subscription, which `startup` creates unless they exist.

    `url`, `client_id` and `client_secret` are those of `AsyncClient`; `subscription` is by default named as the topic.
    A worker holds up to `prefetch` tasks that wait for it. `max_delivery_attempts` and `ack_deadline_seconds` are
    settings of the subscription: a task whose worker dies comes again after the deadline, and after so many times it
    is a dead letter. With `declare=False` nothing is created.

    A task with the label `delay`, in seconds, comes later. Results need a result backend, such as `BusResults`.
    """

    def __init__(
        self,
        url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        *,
        topic: str = "taskiq",
        subscription: str | None = None,
        prefetch: int = 10,
        max_delivery_attempts: int | None = None,
        ack_deadline_seconds: int | None = None,
        declare: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__()
        self._address = (url, client_id, client_secret)
        self._transport = transport
        self._topic = topic
        self._subscription = subscription or topic
        self._prefetch = prefetch
        settings = {"max_delivery_attempts": max_delivery_attempts, "ack_deadline_seconds": ack_deadline_seconds}
        self._settings = {name: value for name, value in settings.items() if value is not None}
        self._declares = declare
        self._client: AsyncClient | None = None
        self._leases: Leases | None = None
        self._open: dict[str, Delivery] = {}

    async def startup(self) -> None:
        """Opens the client once, in the process that sends tasks as in workers."""
        self._client = client = self._client or AsyncClient(*self._address, transport=self._transport)
        if self._declares:
            topic = Topic(self._topic)
            await declare(client, [topic], [Declaration(self._subscription, topic, self._settings)])
        await super().startup()

    async def shutdown(self) -> None:
        """Gives tasks that have not been acknowledged to other workers at once."""
        await super().shutdown()
        for delivery in list(self._open.values()):
            await delivery.nack(0, "its worker stopped")
        self._open.clear()
        if self._leases is not None:
            await self._leases.close()
        if self._client is not None:
            await self._client.close()
        self._client = self._leases = None

    async def kick(self, message: BrokerMessage) -> None:
        delay = math.ceil(float(message.labels.get(DELAY) or 0))
        await self._opened().publish(
            self._topic, payload_of(message.message), delay_seconds=delay if delay > 0 else None
        )

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Holds what it hands out until it is acknowledged, also while the worker finishes its last tasks."""
        client = self._opened()
        self._leases = leases = self._leases or Leases(client, self._subscription)
        async with aclosing(iterate(client, self._subscription, self._prefetch, None, leases)) as deliveries:
            async for delivery in deliveries:
                self._open[delivery.ack_id] = delivery
                leases.hold(delivery)
                yield AckableMessage(data=message_of(delivery.payload), ack=self._acking(delivery))

    def _acking(self, delivery: Delivery) -> Any:
        async def ack() -> None:
            self._open.pop(delivery.ack_id, None)
            await delivery.ack()

        return ack

    def _opened(self) -> AsyncClient:
        if self._client is None:
            raise RuntimeError("the broker is not open: await broker.startup() first")
        return self._client
