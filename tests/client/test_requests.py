"""What is sent, to the byte."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import BaseModel, Field

from fastpubsub.client import AsyncClient, Client, Outgoing, requests
from fastpubsub.client.connections import Misconfigured
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
    lease_seconds=60,
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
    assert body(only_one)["messages"][0] == {"payload": {"n": 1}}


def test_what_is_no_number_is_left_to_the_server_to_refuse() -> None:
    assert requests.publish("orders", {"n": float("nan"), "m": float("inf")}).content == b'[{"n":NaN,"m":Infinity}]'


def test_a_decimal_of_a_filter_is_a_number() -> None:
    filter_ = {"n": [Decimal("1e400"), Decimal("1.10"), "1.10", 7]}
    for request in (
        requests.create_subscription("s", "t", filter=filter_),
        requests.ensure_subscription("s", "t", filter=filter_),
        requests.update_subscription("s", filter=filter_),
    ):
        assert b'"filter":{"n":[1E+400,1.10,"1.10",7]}' in (request.content or b"")
    assert requests.publish("t", {"n": Decimal("1.10")}).content == b'[{"n":"1.10"}]', "as Pydantic writes it"


def test_a_number_that_no_decimal_can_hold_is_read_all_the_same() -> None:
    shown = b'{"id": "t", "created_at": "2026-01-31T12:00:00Z", "payload_schema": {"const": 1e99999999999999999999}}'
    assert requests.get_topic("t").read(shown).payload_schema == {"const": float("inf")}


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
    with pytest.raises(ValueError, match="is not an id"):
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
    with pytest.raises(ValueError, match="is not an id"):
        requests.delete_topic(id_)


TEXTS = ("\r\nX: y", "\0", "\x7f", "\x85", "é", "日本", "\ud800", " x", "x ", "x" * 300 + "\n")


def calls(text: str) -> Iterator[tuple[str, inspect.BoundArguments]]:
    """Every function that makes a request, with the text for one of its arguments after the other."""
    for function in vars(requests).values():
        if not inspect.isfunction(function) or function.__name__.startswith("_"):
            continue
        signature = inspect.signature(function)
        if "Request[" not in str(signature.return_annotation):
            continue
        required = [one for one in signature.parameters.values() if one.default is one.empty]
        given = {one.name: [{}] if one.kind is one.VAR_POSITIONAL else "x" for one in required}
        others: dict[str, Any] = {"messages": [], "settlement": requests.Settlement()}
        others["transaction"] = requests.Transaction()
        given |= {name: value for name, value in others.items() if name in given}
        for name, one in signature.parameters.items():
            value: Any = [{"x": text}] if one.kind is one.VAR_POSITIONAL else text
            value = requests.Settlement().ack(text) if name == "settlement" else value
            arguments = signature.bind_partial()
            arguments.arguments.update({**given, name: value} if name not in ("messages", "transaction") else given)
            yield function.__name__, arguments


def request_or_none(name: str, arguments: inspect.BoundArguments) -> requests.Request[Any] | None:
    """None when it is refused by a short sentence of ours."""
    try:
        made: requests.Request[Any] = getattr(requests, name)(*arguments.args, **arguments.kwargs)
    except ValueError as error:
        if type(error) is ValueError and len(str(error)) < 300:
            return None
        raise
    return made


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_of_a_caller_leaves_its_place(text: str) -> None:
    """It is sent as it is, or refused at once by a sentence of ours."""
    names = set()
    for name, arguments in calls(text):
        names.add(name)
        if (made := request_or_none(name, arguments)) is None:
            continue
        sent = httpx.Request(made.method, f"http://x{made.path}", params=made.params, headers=made.headers)
        target = sent.url.raw_path.decode()
        assert (target.isascii(), target.isprintable()) == (True, True), (name, target)
        for header, value in made.headers.items():
            assert (value.isascii(), value.isprintable(), value.strip()) == (True, True, value), (name, header)
    assert len(names) > 30


def test_what_is_no_header_is_refused_in_words() -> None:
    for text in TEXTS:
        with pytest.raises(ValueError, match=r"^Idempotency-Key .* cannot be sent as a header"):
            requests.publish("t", {}, idempotency_key=text)
        with pytest.raises(ValueError, match=r"^Last-Event-ID .* cannot be sent as a header"):
            requests.follow("t", after=text)
    assert requests.publish("t", {}, idempotency_key="order 7: ~").headers["Idempotency-Key"] == "order 7: ~"


SECRET = "hunter2"
ADDRESSES = {
    "localhost:8000": "must begin with http:// or https://",
    f"http://a:{SECRET}\n@b": "cannot have '\\\\n', which is its character 17 of 19",
    f"http://a:{SECRET}@b ": "cannot have ' '",
    f"http://a:{SECRET}@b\x85": "cannot have",
    f"http://a:{SECRET}@b/\ud800": "cannot have",
    "http://[::1": "cannot be read",
    "http://": "has no host",
    "http:///path": "has no host",
    "http://b:99999": "has a port above 65535",
    f"http://b?token={SECRET}": "must end with its path",
    "http://b/#here": "must end with its path",
}


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_an_address_that_is_none(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, why in ADDRESSES.items():
        with pytest.raises(Misconfigured, match=f"^the address of a server {why}") as refused:
            make(url)
        assert SECRET not in str(refused.value)
        monkeypatch.setenv("FASTPUBSUB_URL", url.replace("\ud800", "\x80"))
        with pytest.raises(Misconfigured, match=r"^FASTPUBSUB_URL: the address of a server"):
            make()


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_credentials_that_are_none(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (*TEXTS, "a b"):
        with pytest.raises(Misconfigured, match=r"^the client id has a character that none of ours has"):
            make("http://b", text, SECRET)
        with pytest.raises(Misconfigured, match=r"^the client secret has a character that none of ours has") as refused:
            make("http://b", "id", SECRET + text)
        assert SECRET not in str(refused.value)
    monkeypatch.setenv("FASTPUBSUB_CLIENT_ID", "id")
    with pytest.raises(Misconfigured, match=r"^FASTPUBSUB_CLIENT_SECRET: a client id and its secret go together"):
        make()
    monkeypatch.setenv("FASTPUBSUB_CLIENT_SECRET", f"{SECRET}\n")
    with pytest.raises(Misconfigured, match=r"^FASTPUBSUB_CLIENT_SECRET: the client secret has a character"):
        make()
