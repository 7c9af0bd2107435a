"""What the server signs, the client and the public library accept, and nothing else."""

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from fastpubsub.client.webhooks import Handled, InvalidWebhook, verify
from fastpubsub.integrations.webhooks import Pushed, Webhooks
from fastpubsub.push.signing import key_of, made_secret, new_secret, sign

SECRET, OTHER = new_secret(), new_secret()
BODY = b'{"total":1}'
NOW = 1700000000


def headers(*secrets: str, at: int = NOW, body: bytes = BODY, message_id: str = "msg") -> dict[str, str]:
    keys = [key_of(secret) for secret in secrets or (SECRET,)]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(keys, message_id, at, body),
    }


def test_the_vector_of_the_specification() -> None:
    """Of the tests of the public libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    signed = sign([key_of(secret)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    given = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": signed,
    }
    assert verify(given, body, secret, now=1614265330) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_a_signature_with_a_private_key() -> None:
    """By the cryptography of Node.js, with the private key that has the bytes 0 to 31."""
    private = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA=="
    public = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
    body = b'{"test": 2432232314}'
    signed = sign([key_of(private), key_of(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    expected = "v1a,yoUrgEkc12aGqm0n4Sydmdz55xJfTz4AsAgieHFjmkR7LJtqVCZOQYzvvHjI5kAey+r4iaBGxTFRrl2iBQxtDQ=="
    assert signed.split(" ")[0] == expected
    given = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": signed,
    }
    for secrets in (public, [OTHER, public], SECRET):
        assert verify(given, body, secrets, now=1614265330) == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    other = made_secret("ed25519").verifies
    text = expected.partition(",")[2]
    for changed, key in (
        ({}, other),
        ({"webhook-id": "msg"}, public),
        ({"webhook-signature": f"v1,{text}"}, public),
        ({"webhook-signature": f"v1a,{text[:-8]}"}, public),
        ({"webhook-signature": "v1a,é v1a, v1a"}, public),
        ({"webhook-signature": f"v1a,{b64encode(b'0' * 64).decode()}"}, public),
    ):
        with pytest.raises(InvalidWebhook):
            verify({**given, **changed}, body, key, now=1614265330)


@pytest.mark.parametrize("key", ["whpk_", "whpk_AAAA", "whpk_?", "whsk_AAAA", f"whpk_{'A' * 100}"])
def test_what_is_no_public_key(key: str) -> None:
    with pytest.raises(ValueError, match=r"whpk_|32|base64"):
        verify(headers(), BODY, key, now=NOW)


@pytest.mark.parametrize("secrets", [(SECRET,), (OTHER, SECRET), (SECRET, OTHER)])
def test_the_public_library_agrees(secrets: tuple[str, ...]) -> None:
    now = int(time.time())
    given = headers(*secrets, at=now)
    assert Webhook(SECRET).verify(BODY.decode(), given) == {"total": 1}
    assert verify(given, BODY, SECRET) == "msg"
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY.decode(), given)


def test_what_the_public_library_signs() -> None:
    now = datetime.now(UTC)
    signed = Webhook(SECRET).sign("msg", now, BODY.decode())
    assert signed == headers(at=int(now.timestamp()))["webhook-signature"]


@pytest.mark.parametrize("at", [NOW - 300, NOW, NOW + 300])
def test_clocks_may_differ(at: int) -> None:
    assert verify(headers(at=at), BODY, [OTHER, SECRET], now=NOW) == "msg"


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in headers().items() if key != name}


REFUSED = {
    "another body": (headers(), BODY + b" "),
    "another secret": (headers(OTHER), BODY),
    "another id": (headers() | {"webhook-id": "other"}, BODY),
    "another time": (headers() | {"webhook-timestamp": str(NOW + 1)}, BODY),
    "too old": (headers(at=NOW - 301), BODY),
    "from the future": (headers(at=NOW + 301), BODY),
    "no id": (without("webhook-id"), BODY),
    "no time": (without("webhook-timestamp"), BODY),
    "no signature": (without("webhook-signature"), BODY),
    "an empty signature": (headers() | {"webhook-signature": "v1,"}, BODY),
    "another version": (headers() | {"webhook-signature": headers()["webhook-signature"].replace("v1", "v2")}, BODY),
    "not ASCII": (headers() | {"webhook-signature": "v1,ä"}, BODY),
    "not UTF-8": (headers() | {"webhook-signature": "v1,\udce4"}, BODY),
    "an id that is not UTF-8": (headers() | {"webhook-id": "\udce4\ud800"}, BODY),
    "a time that is none": (headers() | {"webhook-timestamp": "²"}, BODY),
    "a time with a sign": (headers() | {"webhook-timestamp": f"+{NOW}"}, BODY),
    "a time without an end": (headers() | {"webhook-timestamp": "9" * 5000}, BODY),
    "too many signatures": (headers() | {"webhook-signature": "v1,x " * 99 + headers()["webhook-signature"]}, BODY),
}


@pytest.mark.parametrize("case", REFUSED)
def test_everything_else_is_refused(case: str) -> None:
    given, body = REFUSED[case]
    with pytest.raises(InvalidWebhook) as refused:
        verify(given, body, SECRET, now=NOW)
    assert SECRET.removeprefix("whsec_") not in str(refused.value)


def test_no_secret_accepts_nothing() -> None:
    with pytest.raises(InvalidWebhook):
        verify(headers(), BODY, [], now=NOW)
    with pytest.raises(ValueError, match="whsec_"):
        verify(headers(), BODY, "nonsense!", now=NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_" + "A" * 28])
def test_a_secret_that_anyone_can_guess_is_none(secret: str) -> None:
    """As that of a variable that is empty: anyone can sign with it."""
    forged = headers(secret)
    with pytest.raises(ValueError, match="24 bytes or more"):
        verify(forged, BODY, [OTHER, secret], now=NOW)


@pytest.mark.parametrize("secrets", [[], "", [SECRET, "whsec_AAAA"], "nonsense!", "whsk_AAAA", "whpk_AAAA"])
def test_a_service_without_a_good_secret_does_not_start(secrets: str | list[str]) -> None:
    with pytest.raises(ValueError, match=r"secret|public key"):
        Webhooks(secrets)


def test_handled_messages_are_remembered_for_a_while() -> None:
    handled = Handled(60)
    handled.add("a")
    assert "a" in handled
    assert "b" not in handled
    over = Handled(0)
    over.add("a")
    assert "a" not in over


class Order(BaseModel):
    total: int


@pytest.fixture
async def service() -> AsyncIterator[tuple[httpx.AsyncClient, list[Pushed[Order]]]]:
    app, webhooks, taken = FastAPI(), Webhooks([SECRET, OTHER], max_body_bytes=100), list[Pushed[Order]]()

    @app.post("/hook", status_code=204)
    async def take(pushed: Annotated[Pushed[Order], Depends(webhooks.of(Order))]) -> None:
        if pushed.payload.total == 13 and not taken:
            taken.append(pushed)
            raise RuntimeError
        taken.append(pushed)

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client, taken


async def post(client: httpx.AsyncClient, body: bytes = BODY, *secrets: str, message_id: str = "msg") -> int:
    signed = headers(*secrets, at=int(time.time()), body=body, message_id=message_id)
    return (await client.post("/hook", content=body, headers=signed)).status_code


async def test_a_service_takes_each_message_once(
    service: tuple[httpx.AsyncClient, list[Pushed[Order]]],
) -> None:
    client, taken = service
    assert [await post(client), await post(client), await post(client, BODY, OTHER, message_id="two")] == [
        204,
        200,
        204,
    ]
    assert taken == [Pushed("msg", Order(total=1)), Pushed("two", Order(total=1))]


async def test_a_message_is_handled_by_one_at_a_time() -> None:
    """As when it takes longer than the server waits, or somebody replays a request at once."""
    app, webhooks, going_on, begun = FastAPI(), Webhooks(SECRET), asyncio.Event(), asyncio.Event()

    @app.post("/hook", status_code=204)
    async def take(pushed: Annotated[Pushed[Order], Depends(webhooks.of(Order))]) -> None:
        begun.set()
        await going_on.wait()
        if pushed.payload.total == 2:
            raise HTTPException(503)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        first = asyncio.create_task(post(client))
        await begun.wait()
        assert await post(client) == 425
        failing = asyncio.create_task(post(client, b'{"total":2}', message_id="two"))
        going_on.set()
        assert [await first, await failing] == [204, 503]
        assert [await post(client), await post(client, b'{"total":2}', message_id="two")] == [200, 503]


async def test_what_fails_is_taken_again(service: tuple[httpx.AsyncClient, list[Pushed[Order]]]) -> None:
    client, taken = service
    assert [await post(client, b'{"total":13}') for _ in range(3)] == [500, 204, 200]
    assert len(taken) == 2


async def test_a_commit_that_fails_is_a_failure() -> None:
    """The message must not count as handled: it would be answered with 200 when it comes again."""
    app, webhooks, commits = FastAPI(), Webhooks(SECRET), list[str]()

    def transaction() -> Iterator[None]:
        yield
        commits.append("tried")
        if len(commits) == 1:
            raise RuntimeError

    @app.post("/hook", status_code=204)
    async def take(
        pushed: Annotated[Pushed[Order], Depends(webhooks.of(Order))],
        connection: Annotated[None, Depends(transaction, scope="function")],
    ) -> None: ...

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        assert [await post(client) for _ in range(3)] == [500, 204, 200]
    assert len(commits) == 2


async def test_a_service_refuses(service: tuple[httpx.AsyncClient, list[Pushed[Order]]]) -> None:
    client, taken = service
    assert await post(client, BODY, new_secret()) == 401
    assert (await client.post("/hook", content=BODY)).status_code == 401
    assert await post(client, b'{"total":"many"}') == 422
    assert await post(client, b"{" + b" " * 100 + b"}") == 413
    assert taken == []
