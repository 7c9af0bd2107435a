"""The public libraries of Standard Webhooks verify what the server sends, unmodified."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests import harness
from tests.api.calls import Calls, Json, success
from tests.push.endpoint import Endpoint
from tests.push.test_formats import welcoming
from tests.push.test_pushing import attempts, until_followed

FORMATS = ("standard", "cloudevents", "cloudevents-structured", "pubsub")
PAYLOAD = {"total": 1.10, "text": "gr\u00fc\u00dfe \U0001f389"}
JAVASCRIPT = Path(__file__).parent / "javascript"

StartReceiver = Callable[[int, str], None]


@pytest.fixture
def receiver() -> Iterator[StartReceiver]:
    """Starts a service in Node.js, at this port and with this secret."""
    with ExitStack() as stack:

        def start(port: int, secret: str) -> None:
            process = subprocess.Popen(
                ["node", JAVASCRIPT / "receiver.js", str(port), secret],
                env=os.environ | {"NODE_PATH": str(JAVASCRIPT / "modules")},
                stdout=subprocess.PIPE,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"

        yield start


async def pushed_to(calls: Calls, url: str, form: str) -> str:
    """The secret."""
    await calls.topic()
    push = {"endpoint": url, "format": form}
    created = await calls.subscription(push=push, backoff_min_seconds=0, backoff_max_seconds=0)
    return str(created["push"]["secret"])


async def rotate(client: httpx.AsyncClient, old_seconds: int) -> str:
    made = success(await client.post("/subscriptions/s/push/secrets", json={"old_secret_seconds": old_seconds}), 201)
    return str(made["secret"])


async def newest(client: httpx.AsyncClient, count: int) -> Json:
    """Of the pushes, once there are so many."""
    return (await attempts(client, count))[0]


@pytest.mark.parametrize("form", FORMATS)
async def test_javascript(calls: Calls, client: httpx.AsyncClient, receiver: StartReceiver, form: str) -> None:
    port = harness.free_port()
    receiver(port, await pushed_to(calls, f"http://127.0.0.1:{port}/hook?a=1", form))
    await calls.publish(PAYLOAD)
    first = await newest(client, 1)
    assert (first["outcome"], first["status"]) == ("ack", 200)
    assert (json.loads(first["said"]) == PAYLOAD) == (form in ("standard", "cloudevents"))
    await rotate(client, 60)
    await calls.publish(PAYLOAD)
    assert (await newest(client, 2))["outcome"] == "ack"
    await rotate(client, 0)
    await until_followed(client)
    await calls.publish(PAYLOAD)
    refused = await newest(client, 3)
    assert (refused["status"], refused["said"]) == (401, "WebhookVerificationError: No matching signature found")


@pytest.mark.parametrize("form", FORMATS)
async def test_python(calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint, form: str) -> None:
    endpoint.answers = welcoming
    secrets = [await pushed_to(calls, endpoint.url, form), await rotate(client, 60)]
    await until_followed(client)
    await calls.publish(PAYLOAD)
    got = await endpoint.until_posted()
    for secret in secrets:
        verified = Webhook(secret).verify(got.body, got.headers)
        assert verified == json.loads(got.body)
    with pytest.raises(WebhookVerificationError):
        Webhook(secrets[0]).verify(got.body + b" ", got.headers)


def test_the_vendored_files_are_the_originals() -> None:
    text = (JAVASCRIPT / "README.md").read_text()
    listed = re.findall(r"^\| `([^`]+)` .* `([^`]+)` \| `([0-9a-f]{64})` \|$", text, re.MULTILINE)
    vendored = {path.relative_to(JAVASCRIPT).as_posix() for path in (JAVASCRIPT / "modules").rglob("*.js*")}
    assert {name for name, _, _ in listed} == vendored
    for name, licence, checksum in listed:
        assert hashlib.sha256((JAVASCRIPT / name).read_bytes()).hexdigest() == checksum
        assert (JAVASCRIPT / licence).read_text()
