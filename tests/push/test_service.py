"""The example service under uvicorn: killed and started again, it books each payment exactly once."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.calls import success
from tests.conftest import StartServer
from tests.push.service import Service
from tests.push.test_processes import PATIENCE, POLL_SECONDS, SETTINGS, until_all

COUNT = 300


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.kill()


@pytest.mark.long
async def test_each_payment_is_booked_once(server: StartServer, service: Service) -> None:
    started = server(**SETTINGS, lease_expiry_interval_seconds=0.1, push_max_per_second=1000)
    async with httpx.AsyncClient(base_url=started.base_url, timeout=PATIENCE) as client:
        success(await client.post("/topics", json={"id": "t"}), 201)
        body = {
            "id": "s",
            "topic_id": "t",
            "ack_deadline_seconds": 6,
            "max_delivery_attempts": 1000,
            "backoff_min_seconds": 1,
            "backoff_max_seconds": 1,
            "push": {"endpoint": service.url, "timeout_seconds": 5},
        }
        service.secret = success(await client.post("/subscriptions", json=body), 201)["push"]["secret"]
        service.start()
        for _ in range(0, COUNT, 100):
            success(await client.post("/topics/t/messages", json=[{"account": "a", "cents": 3}] * 100), 204)
        for kill in range(1, 4):
            await asyncio.to_thread(until_booked, service, kill * COUNT // 5)
            service.kill()
            service.start()
        await until_all(client, COUNT)
    assert service.booked() == (COUNT, 3 * COUNT)


def until_booked(service: Service, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while service.booked()[0] < count:
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)
