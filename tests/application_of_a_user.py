"""A FastAPI application with a subscriber that has a dependency, over the bus in memory.

tests/test_packaging.py runs it in environments that have the client and nothing of the server.
"""

import asyncio
import importlib.util
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI
from pydantic import BaseModel

from fastpubsub.client import Topic
from fastpubsub.integrations.fastapi import Bus, BusPublisher
from fastpubsub.testing import InMemoryBus


class Order(BaseModel):
    n: int


bus = Bus()
app = FastAPI(lifespan=bus.lifespan)
orders = Topic("orders", Order)
billed: asyncio.Queue[tuple[int, str]] = asyncio.Queue()


def name() -> str:
    return "of a dependency"


@app.post("/orders")
async def place(order: Order, publisher: BusPublisher) -> str:
    return await publisher.publish(orders, order)


@bus.subscriber("billing", topic=orders)
async def bill(order: Order, named: Annotated[str, Depends(name)]) -> None:
    await billed.put((order.n, named))


async def main() -> None:
    with bus.override(InMemoryBus().transport):
        async with app.router.lifespan_context(app) as state:

            async def with_state(scope, receive, send):  # type: ignore[no-untyped-def]
                await app(scope | {"state": dict(state or {})}, receive, send)

            async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://shop") as client:
                answer = await client.post("/orders", json={"n": 7})
                answer.raise_for_status()
            print(await asyncio.wait_for(billed.get(), 30))


if __name__ == "__main__":
    assert importlib.util.find_spec("fastpubsub.api") is None
    asyncio.run(main())
