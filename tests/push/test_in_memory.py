"""The bus in memory pushes to an application as a server does to a service."""

import time
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel

from fastpubsub.client.webhooks import verify
from fastpubsub.integrations.webhooks import Pushed, Webhooks
from fastpubsub.push.signing import new_secret
from fastpubsub.testing import InMemoryBus
from tests.api.calls import Calls
from tests.push.endpoint import Endpoint
from tests.push.test_pushing import pushed

SECRET = new_secret()


class Order(BaseModel):
    number: int


@pytest.fixture
def bus() -> InMemoryBus:
    made = InMemoryBus()
    made.subscription("billing", topic_id="orders", max_delivery_attempts=2, backoff_min_seconds=5)
    return made


def counts(bus: InMemoryBus) -> tuple[int, int, int]:
    with bus.client() as client:
        metrics = client.metrics("billing")
    return metrics.available, metrics.acked, metrics.dlq


def publish(bus: InMemoryBus, *numbers: object) -> list[str]:
    with bus.client() as client:
        return client.publish("orders", *({"number": number} for number in numbers))


async def test_the_status_settles(bus: InMemoryBus) -> None:
    app, webhooks, tried = FastAPI(), Webhooks(SECRET), list[tuple[int, str, str]]()

    @app.post("/hook", status_code=204)
    async def bill(
        order: Annotated[Pushed[Order], Depends(webhooks.of(Order))],
        attempt: Annotated[str, Header(alias="fastpubsub-attempt")],
    ) -> None:
        tried.append((order.payload.number, order.id, attempt))
        if order.payload.number == 5:
            raise HTTPException(503, "busy")
        if order.payload.number == 6:
            raise RuntimeError

    first, busy, fails, _ = publish(bus, 1, 5, 6, "none")
    await bus.push("billing", app, "/hook", secret=SECRET, reject_on=[422])
    assert counts(bus) == (2, 1, 1)
    bus.advance(seconds=5)
    await bus.push("billing", app, "/hook", secret=SECRET, reject_on=[422])
    assert sorted(tried) == [(1, first, "1"), (5, busy, "1"), (5, busy, "2"), (6, fails, "1"), (6, fails, "2")]
    assert counts(bus) == (0, 1, 3)
    with bus.client() as client:
        reasons = [letter.reason for letter in client.list_dead_letters("billing")]
    assert [reason for reason in reasons if reason and reason.startswith("the endpoint answered 422: ")] != []


async def test_another_secret_is_refused(bus: InMemoryBus) -> None:
    app, webhooks = FastAPI(), Webhooks(new_secret())

    @app.post("/hook", status_code=204)
    async def bill(order: Annotated[Pushed[Order], Depends(webhooks.of(Order))]) -> None: ...

    publish(bus, 1)
    await bus.push("billing", app, "/hook", secret=SECRET)
    assert counts(bus) == (1, 0, 0)
    with pytest.raises(ValueError, match="24 bytes"):
        await bus.push("billing", app, "/hook", secret="")


async def test_the_request_is_that_of_a_server(calls: Calls, endpoint: Endpoint, bus: InMemoryBus) -> None:
    payload = {"number": 1.10, "text": "gr\u00fc\u00dfe", "none": None}
    secret = await pushed(calls, endpoint, "billing")
    await calls.publish(payload)
    (expected,) = await endpoint.until(1)
    app, got = FastAPI(), list[tuple[dict[str, str], bytes]]()

    @app.post("/hook", status_code=204)
    async def take(request: Request) -> None:
        got.append((dict(request.headers), await request.body()))

    with bus.client() as client:
        (message_id,) = client.publish("orders", payload)
    await bus.push("billing", app, "/hook?a=1", secret=secret)
    ((headers, body),) = got
    assert body == expected.body
    assert verify(headers, body, secret, now=time.time()) == message_id
    changing = {"webhook-id", "webhook-timestamp", "webhook-signature", "host", "user-agent", "accept-encoding"}
    assert expected.headers.items() - {(name, expected.headers[name]) for name in changing} <= headers.items()
