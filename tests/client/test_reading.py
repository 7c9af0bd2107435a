"""A payload is read once, as what the handler takes."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from fastpubsub.client import Message
from fastpubsub.client.deliveries import ACK, Delivery, hold_of
from fastpubsub.client.handlers import Handler
from fastpubsub.client.reading import reader_of
from tests.client.test_handlers import delivery, handled

seen: list[int] = []
"""What was read."""


class Order(BaseModel):
    order_id: int

    @field_validator("order_id")
    @classmethod
    def count(cls, value: int) -> int:
        seen.append(value)
        if value == 13:
            raise SystemExit
        return value


def answer(*payloads: dict[str, Any]) -> bytes:
    return b'{"data":[%b]}' % b",".join(delivery(**one).model_dump_json().encode() for one in payloads)


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


async def test_a_payload_is_read_once() -> None:
    orders = []

    async def handle(order: Order) -> None:
        orders.append(order)

    handler = Handler(handle)
    pulled = reader_of(handler)(answer({"order_id": 1}, {"order_id": 2}))
    for one in pulled.data:
        assert isinstance(one, Delivery)
        assert await handled(handler, one) == ACK
    assert [order.order_id for order in orders] == seen == [1, 2]


@pytest.mark.parametrize("bad", [{"order_id": "x"}, {}, {"order_id": 13}])
async def test_one_that_does_not_fit_keeps_no_other_from_it(bad: dict[str, Any]) -> None:
    async def handle(order: Order) -> None: ...

    handler = Handler(handle)
    good, other = reader_of(handler)(answer({"order_id": 1}, bad)).data
    assert (good.payload, other.payload) == ({"order_id": 1}, bad)
    assert await handled(handler, good) == ACK
    assert (await handled(handler, other)).kind == ("nack" if bad == {"order_id": 13} else "reject")


async def test_a_message_has_its_payload_as_it_is() -> None:
    async def handle(order: Order, message: Message) -> None: ...

    (one,) = reader_of(Handler(handle))(answer({"order_id": 1})).data
    assert (one.payload, hold_of(one).is_validated) == ({"order_id": 1}, False)


def test_what_is_no_answer_is_an_error() -> None:
    async def handle(order: Order) -> None: ...

    with pytest.raises(ValidationError):
        reader_of(Handler(handle))(b'{"data":[{"id":1}]}')
