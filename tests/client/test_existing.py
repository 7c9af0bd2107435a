"""What was to be created and is there already."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from fastpubsub.client import AlreadyExists, Client
from fastpubsub.client.existing import must_change, require_same
from fastpubsub.testing import InMemoryBus

SETTINGS: dict[str, Any] = {
    "filter": {"country": ["BR", "US"], "total": [20]},
    "max_delivery_attempts": 7,
    "backoff_min_seconds": 2,
    "backoff_max_seconds": 20,
    "ack_deadline_seconds": 120,
}
OTHER: dict[str, Any] = {
    "filter": {"country": ["BR"], "total": [20]},
    "max_delivery_attempts": 8,
    "backoff_min_seconds": 3,
    "backoff_max_seconds": 30,
    "ack_deadline_seconds": 121,
}


@pytest.fixture
def bus() -> Iterator[Client]:
    with InMemoryBus().client() as client:
        client.create_topic("orders", retention_seconds=600)
        client.create_topic("others")
        client.create_subscription("billing", "orders", **SETTINGS)
        yield client


def test_the_same_is_answered(bus: Client) -> None:
    found = bus.get_subscription("billing")
    reordered = SETTINGS | {"filter": {"total": [20.0], "country": ["US", "BR"]}}
    for given in ({}, SETTINGS, reordered, {"start_from": "earliest"}, {"fork_of": "x"}):
        assert bus.create_subscription("billing", "orders", exist_ok=True, **given) == found
        assert bus.ensure_subscription("billing", "orders", **given) == found
    assert bus.create_topic("orders", exist_ok=True, retention_seconds=600) == bus.get_topic("orders")
    assert bus.create_topic("orders", exist_ok=True).retention_seconds == 600


@pytest.mark.parametrize("name", OTHER)
def test_a_difference_is_named_or_mended(bus: Client, name: str, caplog: pytest.LogCaptureFixture) -> None:
    before = bus.get_subscription("billing")
    with pytest.raises(AlreadyExists, match=f'subscription "billing" already exists and differs: {name} is ') as error:
        bus.create_subscription("billing", "orders", exist_ok=True, **{name: OTHER[name]})
    assert error.value.status == 409
    assert bus.get_subscription("billing") == before
    with caplog.at_level(logging.INFO, "fastpubsub.client"):
        changed = bus.ensure_subscription("billing", "orders", **{name: OTHER[name]})
    assert changed == before.model_copy(update={name: OTHER[name]}) == bus.get_subscription("billing")
    assert caplog.messages[-1].startswith(f'subscription "billing" changes: {name} from ')


def test_another_topic_is_refused(bus: Client) -> None:
    before = bus.get_subscription("billing")
    with pytest.raises(AlreadyExists, match='topic_id is "orders", not "others"'):
        bus.create_subscription("billing", "others", exist_ok=True)
    with pytest.raises(AlreadyExists, match='topic_id is "orders", not "others"'):
        bus.ensure_subscription("billing", "others", ack_deadline_seconds=5)
    assert bus.get_subscription("billing") == before


def test_a_topic_with_another_retention(bus: Client) -> None:
    with pytest.raises(
        AlreadyExists, match='topic "orders" already exists and differs: retention_seconds is 600, not 5'
    ):
        bus.create_topic("orders", retention_seconds=5, exist_ok=True)


def test_one_that_is_not_there_is_created_and_a_filter_is_removed(bus: Client) -> None:
    assert bus.ensure_subscription("audit", "orders", max_delivery_attempts=9).max_delivery_attempts == 9
    assert bus.ensure_subscription("billing", "orders", filter={}).filter is None


@pytest.mark.parametrize(
    ("wanted", "there", "same"),
    [
        ({"schema": {"const": True}}, {"schema": {"const": 1}}, False),
        ({"schema": {"const": [1.0]}}, {"schema": {"const": [1]}}, True),
        ({"schema": {"enum": [1, 2]}}, {"schema": {"enum": [2, 1]}}, False),
        ({"schema": None}, {"schema": {}}, False),
        ({"filter": {"a": [1]}}, {"filter": {"a": [True]}}, False),
        ({"filter": {"a": [12345678901234567890]}}, {"filter": {"a": [12345678901234567891]}}, False),
        ({"filter": {}}, {"filter": None}, True),
        ({"start_from": "latest"}, {}, True),
    ],
)
def test_what_is_the_same(wanted: dict[str, Any], there: dict[str, Any], same: bool) -> None:
    sent, found = json.dumps({"id": "x"} | wanted).encode(), json.dumps({"id": "x"} | there).encode()
    assert must_change(sent, found) is not same
    if same:
        require_same("topic", sent, found)
    else:
        with pytest.raises(AlreadyExists):
            require_same("topic", sent, found)
