"""Topics of one type: what may be published to them. mypy checks this file, and each `ignore` that it does not need."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, NewType, get_overloads

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from fastpubsub.client import AsyncPublisher, Outgoing, Publisher, Topic, requests
from fastpubsub.client.typed import Publish, PublishOne
from fastpubsub.testing import InMemoryBus


class Order(BaseModel):
    order_id: int


class Express(Order):
    hours: int


class Refund(BaseModel):
    order_id: int


@dataclass
class Note:
    text: str


class Row(TypedDict):
    n: int


ORDERS = Topic("orders", Order)
BOTH = Topic[Order | Refund]("both", Order | Refund)
NOTES = Topic("notes", Note)
ROWS = Topic("rows", Row)
ANYTHING = Topic("anything")


@pytest.fixture
def memory() -> InMemoryBus:
    bus = InMemoryBus()
    with bus.client() as client:
        for topic in (ORDERS, BOTH, NOTES, ROWS, ANYTHING):
            client.create_topic(topic.id)
    return bus


def test_what_fits_is_published(memory: InMemoryBus) -> None:
    with memory.client() as bus:
        bus.publish(ORDERS, Order(order_id=1), Express(order_id=2, hours=3), Outgoing(Order(order_id=3), {"a": "b"}))
        bus.publish(BOTH, Order(order_id=1), Refund(order_id=2))
        bus.publish(NOTES, Note("hello"))
        bus.publish(ROWS, Row(n=1))
        bus.publish(ANYTHING, {"x": 1}, Order(order_id=1))
        bus.publish("orders", {"order_id": 4})
    assert memory.published("orders") == [
        {"order_id": 1},
        {"order_id": 2, "hours": 3},
        {"order_id": 3},
        {"order_id": 4},
    ]
    assert [len(memory.published(one)) for one in ("both", "notes", "rows", "anything")] == [2, 1, 1, 2]


def test_anything_else_is_refused_by_mypy_and_at_run_time(memory: InMemoryBus) -> None:
    with memory.client() as bus:
        with pytest.raises(TypeError, match="topic orders takes Order, not dict"):
            bus.publish(ORDERS, {"order_id": 1})  # type: ignore[misc]
        with pytest.raises(TypeError, match="topic orders takes Order, not Refund"):
            bus.publish(ORDERS, Order(order_id=1), Refund(order_id=1))  # type: ignore[misc]
        with pytest.raises(TypeError, match="topic both takes Order or Refund, not Note"):
            bus.publish(BOTH, Note("hello"))  # type: ignore[misc]
        with pytest.raises(TypeError, match="topic rows takes Row, not dict"):
            bus.publish(ROWS, {"n": "one"})  # type: ignore[misc]
        with pytest.raises(TypeError, match="topic orders takes Order, not dict"):
            bus.publish(ORDERS, Outgoing({"order_id": 1}))
    assert not any(memory.published(topic.id) for topic in (ORDERS, BOTH, ROWS))


async def test_by_every_way_to_publish(memory: InMemoryBus) -> None:
    with memory.client() as bus, bus.publisher() as publisher:
        assert publisher.publish(ORDERS, Order(order_id=1)).result()
        with pytest.raises(TypeError):
            publisher.publish(ORDERS, Refund(order_id=1))  # type: ignore[misc]
    async with memory.async_client() as client, client.publisher() as sender:
        assert await client.publish(ORDERS, Order(order_id=2))
        assert await sender.publish(ORDERS, Order(order_id=3))
        assert await (await sender.enqueue(ORDERS, Order(order_id=4)))
        with pytest.raises(TypeError):
            await client.publish(ORDERS, Refund(order_id=1))  # type: ignore[misc]
        with pytest.raises(TypeError):
            await sender.publish(ORDERS, Refund(order_id=1))  # type: ignore[misc]
    assert [one["order_id"] for one in memory.published("orders")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "kind", [Annotated[Order | Refund, Field(description="either")], NewType("Bought", Order), dict[str, int]]
)
def test_types_of_other_forms(kind: Any) -> None:
    topic: Topic[Any] = Topic("t", kind)
    topic.check({"n": 1} if kind == dict[str, int] else Order(order_id=1))
    with pytest.raises(TypeError):
        topic.check({"n": "one"})


def test_a_type_that_cannot_be_read() -> None:
    class Odd:
        pass

    with pytest.raises(TypeError, match="Pydantic cannot read"):
        Topic("t", list[Odd])
    assert repr(ORDERS) == "Topic('orders', Order)"


def test_type_checkers_see_what_there_is() -> None:
    """The protocols in `typed.py` repeat the parameters: add there what a way to publish has got."""
    assert parameters(Publish) == {"self", *inspect.signature(requests.publish).parameters}
    for publisher in (Publisher.publish, AsyncPublisher.publish, AsyncPublisher.enqueue):
        assert parameters(PublishOne) == set(inspect.signature(publisher).parameters)


def parameters(protocol: Any) -> set[str]:
    """All overloads have the same. Those of a protocol are found by its name alone: nothing implements them."""

    def call() -> None: ...

    call.__module__, call.__qualname__ = protocol.__module__, f"{protocol.__qualname__}.__call__"
    (names,) = {frozenset(inspect.signature(one).parameters) for one in get_overloads(call)}
    return set(names)
