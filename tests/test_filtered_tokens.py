"""Tokens that are bound to a filter: a browser follows what is its own, and nothing else."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fastpubsub.client import Client
from tests import harness
from tests.attacks import KEY
from tests.conftest import Run
from tests.lasting import Last, Lasting
from tests.streams import Events

MINE = {"$attributes": {"user": ["42"]}}


class Shop:
    def __init__(self, started: harness.Server, client_id: str, secret: str) -> None:
        self.started = started
        self.credentials = client_id, secret
        self.client = Client(started.base_url, client_id=client_id, client_secret=secret)

    def token(self, **wanted: Any) -> str:
        return self.client.create_token(*self.credentials, **wanted).access_token

    def ask_token(self, **wanted: Any) -> httpx.Response:
        client_id, secret = self.credentials
        body = {"client_id": client_id, "client_secret": secret, **wanted}
        return httpx.post(f"{self.started.base_url}/oauth/token", json=body)

    def ask_token_by_form(self, **wanted: str) -> httpx.Response:
        form = {"grant_type": "client_credentials", **wanted}
        return httpx.post(f"{self.started.base_url}/oauth/token", data=form, auth=self.credentials)

    def follow(self, token: str, **query: Any) -> Events:
        return Events(self.started, "/topics/t/stream", bearer(token), **query)

    def publish(self, n: int, user: str) -> None:
        self.client.publish("t", {"n": n}, attributes={"user": user})


def payloads(messages: list[dict[str, Any]]) -> list[Any]:
    return [message["payload"] for message in messages]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def lasting(lasting_server: Last) -> Lasting:
    return lasting_server(auth_enabled=True, auth_secret_key=KEY)


@pytest.fixture
def database_url(lasting: Lasting) -> str:
    return lasting.database_url


@pytest.fixture
def shop(lasting: Lasting, run: Run) -> Iterator[Shop]:
    made = dict(re.findall(r"^(client_\w+)=(.*)$", run("create_client", "shop", "*").stdout, re.MULTILINE))
    shop = Shop(lasting, made["client_id"], made["client_secret"])
    with shop.client:
        shop.client.create_topic("t")
        yield shop


def test_a_token_lets_nothing_else_pass(shop: Shop) -> None:
    token = shop.token(scope="topics:consume:t", filter=MINE)
    with shop.follow(token) as mine, shop.follow(token, filter='{"n": [3]}') as narrower:
        for n, user in enumerate(["7", "42", "4", "42", "42"]):
            shop.publish(n, user)
        assert payloads(mine.messages(3)) == [{"n": 1}, {"n": 3}, {"n": 4}]
        assert narrower.message()["payload"] == {"n": 3}
    either = '{"$or": [{"$attributes": {"user": ["7"]}}, {"n": [4]}]}'
    with shop.follow(token, recent=1000) as recent, shop.follow(token, recent=1000, filter=either) as wider:
        assert payloads(recent.messages(3)) == [{"n": 1}, {"n": 3}, {"n": 4}]
        assert wider.message()["payload"] == {"n": 4}


def test_a_token_of_a_form_and_what_is_said_of_it(shop: Shop) -> None:
    answer = shop.ask_token_by_form(scope="topics:consume", filter='{"total": [100000000000000000.1]}')
    token = answer.json()["access_token"]
    said = httpx.post(f"{shop.started.base_url}/oauth/introspect", data={"token": token}, auth=shop.credentials).json()
    assert (said["active"], said["scope"], said["filter"]) == (
        True,
        "topics:consume",
        '{"total": [100000000000000000.1]}',
    )
    with shop.follow(token) as exact:
        shop.client.publish("t", {"total": 100000000000000000})
        httpx.post(
            f"{shop.started.base_url}/topics/t/messages",
            content='[{"total": 100000000000000000.1}]',
            headers=bearer(shop.token()) | {"Content-Type": "application/json"},
        ).raise_for_status()
        assert exact.message()["id"].endswith("2")


@pytest.mark.parametrize(
    ("wanted", "status", "said"),
    [
        ({"scope": "topics:consume topics:publish", "filter": MINE}, 422, "cannot have the scope 'topics:publish'"),
        ({"filter": MINE}, 422, "cannot have the scope '*'"),
        ({"scope": "topics:consume", "filter": {"a": [{"prefix": 1}]}}, 422, '"prefix" takes a string'),
        ({"scope": "topics:consume", "filter": {"a": ["x" * 2048]}}, 422, "more than 2048"),
        ({"scope": "topics:consume", "filter": "x"}, 422, "a filter must be an object"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_filters_that_are_refused(shop: Shop, wanted: dict[str, Any], status: int, said: str) -> None:
    refused = shop.ask_token(**wanted)
    assert refused.status_code == status
    assert said in refused.text.replace('\\"', '"')
    as_text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in wanted.items()}
    by_form = shop.ask_token_by_form(**as_text)
    assert by_form.status_code == 400
    assert by_form.json()["error"] in ("invalid_request", "invalid_scope")
    assert by_form.json()["error_description"]


@pytest.mark.parametrize("text", ["{", "[" * 4_000, '{"a": [1], "a": [2]}', "{}x", "nul", '{"a": [NaN]}'])
def test_texts_of_a_form_that_are_no_filters(shop: Shop, text: str) -> None:
    refused = shop.ask_token_by_form(scope="topics:consume", filter=text)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
