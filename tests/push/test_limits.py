"""Limits of a subscription hold for pushes, too."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.calls import Calls, success
from tests.push.endpoint import Endpoint
from tests.push.test_ordered import once


@pytest.mark.parametrize(("limit", "value", "more"), [("rate_limit", 0.00001, 1000), ("max_in_flight", 1, 0)])
async def test_an_endpoint_gets_no_more(
    calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint, limit: str, value: float, more: int
) -> None:
    """What is pushed at once is claimed at once: the first claim would have taken all."""
    endpoint.answers = once(answering := asyncio.Event())
    await calls.topic()
    settings: dict[str, Any] = {limit: value}
    await calls.subscription(**settings)
    success(await client.post("/topics/t/messages", json=[{"n": 1}, {"n": 2}, {"n": 3}]), 204)
    success(await client.patch("/subscriptions/s", json={"push": {"endpoint": endpoint.url}}), 200)
    await endpoint.until(1)
    assert (await calls.counts())[0] == 2
    success(await client.patch("/subscriptions/s", json={limit: more}), 200)
    await endpoint.until(3)
    answering.set()
