"""What is sent, to the byte."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from fastpubsub.client import Outgoing, requests
from fastpubsub.models import Message

TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = UUID("019c13cb-6d29-7000-8000-040000000001")
MESSAGE = Message(
    id=ID,
    subscription_id="s",
    payload={},
    delivery_attempts=1,
    created_at=TIME,
    ack_id=f"{ID}.0123456789abcdef",
    lease_expires_at=TIME,
)


class Order(BaseModel):
    order_id: int
    at: datetime = Field(TIME, alias="when")


@dataclass
class Refund:
    order_id: int


def body(request: requests.Request[Any]) -> Any:
    return json.loads(request.content or b"")


def test_payloads_are_models_dataclasses_and_dicts() -> None:
    request = requests.publish("orders", Order(order_id=1), Refund(2), {"order_id": 3, "at": TIME})
    assert body(request) == [
        {"order_id": 1, "when": "2026-01-31T12:00:00Z"},
        {"order_id": 2},
        {"order_id": 3, "at": "2026-01-31T12:00:00Z"},
    ]


def test_attributes_go_with_each_message() -> None:
    request = requests.publish("orders", {"n": 1}, Outgoing({"n": 2}, {"b": "3"}), attributes={"a": "1", "b": "2"})
    assert body(request) == {
        "messages": [
            {"payload": {"n": 1}, "attributes": {"a": "1", "b": "2"}},
            {"payload": {"n": 2}, "attributes": {"a": "1", "b": "3"}},
        ]
    }
    only_one = requests.publish("orders", {"n": 1}, Outgoing({"n": 2}, {"b": "3"}))
    assert body(only_one)["messages"][0] == {"payload": {"n": 1}, "attributes": None}


def test_what_is_no_number_is_left_to_the_server_to_refuse() -> None:
    assert requests.publish("orders", {"n": float("nan"), "m": float("inf")}).content == b'[{"n":NaN,"m":Infinity}]'


def test_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        requests.publish("orders", {"n": object()})


def test_a_key_of_ones_own() -> None:
    assert requests.publish("orders", {}, idempotency_key="order-1").headers["Idempotency-Key"] == "order-1"
    keys = {requests.publish("orders", {}).headers["Idempotency-Key"] for _ in range(100)}
    assert len(keys) == 100


@pytest.mark.parametrize("ids", [MESSAGE, [MESSAGE], MESSAGE.ack_id, [MESSAGE.ack_id]])
def test_a_message_is_settled_by_its_ack_id(ids: Any) -> None:
    assert body(requests.ack("s", ids)) == [MESSAGE.ack_id]
    assert body(requests.reject("s", ids, reason="r" * 2000)) == {"ids": [MESSAGE.ack_id], "reason": "r" * 1024}
    assert requests.nack("s", ids).repeatable


def test_a_message_id_may_meet_the_next_delivery() -> None:
    assert body(requests.nack("s", ID)) == [str(ID)]
    assert not requests.nack("s", ID).repeatable
    assert not requests.reject("s", [MESSAGE, str(ID)]).repeatable
    assert requests.ack("s", ID).repeatable


def test_what_changes_a_secret_is_not_repeated() -> None:
    assert not requests.rotate_client_secret(ID, old_secret_seconds=0).repeatable
    assert not requests.revoke_client_secret(ID, "old").repeatable
    with pytest.raises(ValueError, match="is no id"):
        requests.rotate_client_secret("..")


@pytest.mark.parametrize("to", [MESSAGE, ID, str(ID)])
def test_seeking_to_a_message(to: Any) -> None:
    assert body(requests.seek("s", to)) == {"to": str(ID)}


def test_what_is_left_out_of_a_change_stays() -> None:
    assert body(requests.update_subscription("s")) == {}
    assert body(requests.update_subscription("s", filter=None)) == {"filter": None}
    assert body(requests.update_topic("t", retention_seconds=None)) == {"retention_seconds": None}


@pytest.mark.parametrize(("id_", "path"), [("a/b", "/topics/a%2Fb"), ("a b?#", "/topics/a%20b%3F%23")])
def test_ids_cannot_leave_their_path(id_: str, path: str) -> None:
    assert requests.delete_topic(id_).path == path


@pytest.mark.parametrize("id_", ["", ".", ".."])
def test_what_is_no_id(id_: str) -> None:
    with pytest.raises(ValueError, match="is no id"):
        requests.delete_topic(id_)
