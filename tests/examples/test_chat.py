"""The chat without its page."""

import json
from collections.abc import Callable

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastpubsub.client import Client
from tests.examples.conftest import Serve
from tests.pages import Shell

SECONDS = 60.0
BODIES = [
    '{"name": "", "text": "x"}',
    '{"name": " ", "text": "x"}',
    '{"name": "x", "text": "a\\u0000b"}',
    '{"name": "x"}',
    '{"name": "x", "text": {"a": 1}}',
    '{"name": "x", "text": "' + "x" * 2001 + '"}',
    '{"name": "x", "text": "\\ud800"}',
    '{"name": "x", "text": NaN}',
    '{"name": "x", "text": 1e999}',
    "[]",
    "{",
    "",
]


def test_what_people_send(
    bus: Client, copied: Callable[[str], Shell], serve: Serve, port: int, subtests: pytest.Subtests
) -> None:
    chat = serve(copied("chat"), "chat:app", port)
    url = f"http://127.0.0.1:{port}"
    for body in BODIES:
        with subtests.test(body[:40]):
            answer = httpx.post(f"{url}/messages", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 422
    said = httpx.post(f"{url}/messages", json={"name": " Zoë ", "text": "\u2028 👋 </script>"})
    assert said.status_code == 201
    with connect(f"ws://127.0.0.1:{port}/live") as first:
        message = json.loads(first.recv(SECONDS))
        assert (message["id"], message["payload"]) == (said.json()["id"], {"name": "Zoë", "text": "👋 </script>"})
        first.send("nobody listens to this")
        with connect(f"ws://127.0.0.1:{port}/live?after={message['id']}") as second:
            bus.publish("chat", {"name": "Bob", "text": "next"})
            assert [json.loads(one.recv(SECONDS))["payload"]["text"] for one in (first, second)] == ["next"] * 2
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{port}/live?after=../etc/passwd")
    chat.stop()
    assert "Traceback" not in chat.output()
