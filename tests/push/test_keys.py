"""The key of the settings that seals what is secret: another one, and none that fits."""

import asyncio

import psycopg

from fastpubsub.client.webhooks import verify
from fastpubsub.config import Settings
from fastpubsub.sealing import Sealer, Unreadable
from fastpubsub.services.pushing import headers_use, secret_use
from tests import harness
from tests.api.calls import Calls, success
from tests.conftest import Connect, MakeSettings
from tests.push.endpoint import PATIENCE, Endpoint
from tests.push.test_pushing import pushed, until_counts, until_status

OLD, NEW = "o" * 32, "n" * 32
ALLOWED = {"push_allow_http": True, "push_allow_networks": "127.0.0.0/8", "push_allow_ports": "*"}


async def is_sealed_with(connection: psycopg.AsyncConnection, key: str) -> bool:
    """All that is secret, and by this key alone."""
    found = await connection.execute("select headers, secret, old_secret from fastpubsub.endpoints")
    ((headers, *secrets),) = await found.fetchall()
    sealer = Sealer([key])
    try:
        sealer.open(headers, headers_use("s"))
        for secret in secrets:
            sealer.open(secret, secret_use("s"))
    except Unreadable:
        return False
    return True


async def test_a_key_is_replaced(make_settings: MakeSettings, endpoint: Endpoint, connect: Connect) -> None:
    """While messages are pushed, and at the end the old one can be given up."""
    connection, secrets = await connect(), list[str]()
    async with harness.opened(make_settings(push_secret_key=OLD, **ALLOWED)) as client:
        secrets.append(await pushed(Calls(client), endpoint, headers={"X-Key": "of-the-endpoint"}))
        answer = await client.post("/subscriptions/s/push/secrets", json={"old_secret_seconds": 600})
        secrets.append(success(answer, 201)["secret"])
        assert await is_sealed_with(connection, OLD)
    async with (
        harness.opened(make_settings(push_secret_key=f"{NEW}, {OLD}", **ALLOWED)) as client,
        asyncio.timeout(PATIENCE),
    ):
        while not await is_sealed_with(connection, NEW):
            pass
    async with harness.opened(make_settings(push_secret_key=NEW, **ALLOWED)) as client:
        (message_id,) = await Calls(client).publish({"n": 1})
        (got,) = await endpoint.until(1)
        assert [verify(got.headers, got.body, secret) for secret in secrets] == [message_id] * 2
        assert got.headers["x-key"] == "of-the-endpoint"


async def test_without_its_key_an_endpoint_waits_and_says_why(make_settings: MakeSettings, endpoint: Endpoint) -> None:
    async with harness.opened(make_settings(push_secret_key=OLD, **ALLOWED)) as client:
        await pushed(Calls(client), endpoint)
    async with harness.opened(make_settings(push_secret_key=NEW, **ALLOWED)) as client:
        await Calls(client).publish({"n": 1})
        status = await until_status(client, is_held=True, failures=1)
        assert status["last_failure"] == "no push: it was sealed with a key that this process does not have"
        assert endpoint.received == []
    async with harness.opened(make_settings(push_secret_key=f"{NEW},{OLD}", **ALLOWED)) as client:
        await until_counts(Calls(client), (0, 0, 1, 0))
        await until_status(client, breaker="closed", last_failure=None)


async def test_what_the_settings_no_longer_allow_waits_and_says_why(
    make_settings: MakeSettings, endpoint: Endpoint
) -> None:
    async with harness.opened(make_settings(push_secret_key=OLD, **ALLOWED)) as client:
        await pushed(Calls(client), endpoint)
    async with harness.opened(make_settings(push_secret_key=OLD, **{**ALLOWED, "push_allow_http": False})) as client:
        await Calls(client).publish({"n": 1})
        status = await until_status(client, is_held=True, failures=1)
        assert "must begin with https://" in status["last_failure"]
        assert endpoint.received == []


def test_keys_may_have_spaces_around(make_settings: MakeSettings) -> None:
    made: Settings = make_settings(push_secret_key=f" {NEW} , {OLD}\n")
    assert made.push_keys() == [NEW, OLD]
