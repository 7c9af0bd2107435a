"""What of `push` is refused when it is set."""

from typing import Any

import httpx
import pytest

from fastpubsub.config import Settings
from tests.api.calls import Calls, problem, success
from tests.conftest import MakeSettings
from tests.push.endpoint import KEY
from tests.together import together

WELL = {"endpoint": "https://8.8.8.8/hook"}


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """As in production."""
    return make_settings(push_secret_key=KEY, push_enabled=False)


ENDPOINTS = [
    "http://8.8.8.8/hook",
    "https://8.8.8.8:8080/hook",
    "https://8.8.8.8:0/hook",
    "https://8.8.8.8:99999/hook",
    "https://127.0.0.1/hook",
    "https://127.1/hook",
    "https://2130706433/hook",
    "https://0x7f000001/hook",
    "https://0177.0.0.1/hook",
    "https://localhost/hook",
    "https://[::1]/hook",
    "https://[::ffff:127.0.0.1]/hook",
    "https://[64:ff9b::a9fe:a9fe]/hook",
    "https://169.254.169.254/latest/meta-data",
    "https://user:password@8.8.8.8/hook",
    "https://8.8.8.8#@127.0.0.1/",
    "https://8.8.8.8\\@127.0.0.1/",
    "https://8.8.8.8/ hook",
    "https://8.8.8.8/\r\nEvil: 1",
    "https://8.8.8.8/hook#fragment",
    "https://8.8.8.8/\u00e4",
    "https:///hook",
    "https://[fe80::1%25eth0]/hook",
    "https://[8.8.8.8]/hook",
    "ftp://8.8.8.8/hook",
    "file:///etc/passwd",
    "gopher://8.8.8.8/",
    "//8.8.8.8/hook",
    "8.8.8.8",
    "",
    "https://8.8.8.8/" + "a" * 2048,
    "https://name.invalid/hook",
]
OTHERS: list[dict[str, Any]] = [
    {"format": "soap"},
    {"timeout_seconds": 0},
    {"timeout_seconds": 60},
    {"timeout_seconds": 61},
    {"timeout_seconds": True},
    {"max_concurrency": 0},
    {"max_concurrency": 1001},
    {"reject_on": [500]},
    {"reject_on": [200]},
    {"reject_on": [400] * 21},
    {"secret": "whsec_mine"},
    {"surprise": 1},
    *(
        {"headers": {name: "x"}}
        for name in ("Host", "content-LENGTH", "Transfer-Encoding", "Connection", "TE", "Upgrade", "Expect")
    ),
    *({"headers": {name: "x"}} for name in ("Proxy-Authorization", "webhook-id", "Webhook-Signature", "ce-id")),
    *({"headers": {name: "x"}} for name in ("Fastpubsub-Attempt", "a b", "a:b", "", "\u00e4", "a\r\nb", "x" * 101)),
    *({"headers": {"X-Key": value}} for value in ("", " ", "a\r\nb", "a\nb", "a\0", "\u00e4", "x" * 4097)),
    {"headers": {"X-Key": "a", "x-key": "b"}},
    {"headers": {f"X-{number}": "x" for number in range(21)}},
    {"headers": {"X-Key": 1}},
    {"headers": ["X-Key"]},
]


@together("endpoint", ENDPOINTS)
async def test_endpoints_that_are_refused(client: httpx.AsyncClient, calls: Calls, endpoint: str) -> None:
    await calls.ready()
    problem(await client.patch("/subscriptions/s", json={"push": {"endpoint": endpoint}}), 422)
    new = {"id": "new", "topic_id": "t", "push": {"endpoint": endpoint}}
    problem(await client.post("/subscriptions", json=new), 422)
    problem(await client.get("/subscriptions/new"), 404)
    assert "push" not in success(await client.get("/subscriptions/s"), 200)


@together("member", OTHERS)
async def test_members_that_are_refused(client: httpx.AsyncClient, calls: Calls, member: dict[str, Any]) -> None:
    await calls.ready()
    problem(await client.patch("/subscriptions/s", json={"push": {**WELL, **member}}), 422)
    assert "push" not in success(await client.get("/subscriptions/s"), 200)


@pytest.mark.parametrize("endpoint", ["https://8.8.8.8/hook?a=b&c", "HTTPS://8.8.8.8:8443", "https://[2600::1]/"])
async def test_endpoints_that_are_taken(client: httpx.AsyncClient, calls: Calls, endpoint: str) -> None:
    await calls.topic_and_subscription()
    push = {"endpoint": endpoint, "headers": {"X-Key": "a b"}}
    changed = success(await client.patch("/subscriptions/s", json={"push": push}), 200)["push"]
    assert (changed["endpoint"], changed["header_names"]) == (endpoint, ["X-Key"])
