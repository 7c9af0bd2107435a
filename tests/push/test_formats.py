"""What requests look like in each format."""

import asyncio
import json
from base64 import b64decode
from datetime import UTC, datetime
from urllib.parse import unquote

import httpx
import pytest

from fastpubsub.push.formats import PushedMessage
from fastpubsub.push.requests import Place, posted, replacing
from fastpubsub.push.signing import key_of, sign
from tests import harness
from tests.api.calls import Calls, success
from tests.push.endpoint import PATIENCE, Endpoint, Received, answer
from tests.push.test_pushing import pushed, until_counts, until_status

pytestmark = pytest.mark.shared_application

PAYLOAD = {"a": "ä"}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def welcoming(request: Received) -> bytes:
    return answer(200, WebHook_Allowed_Origin="*") if request.method == "OPTIONS" else answer(204)


async def publish(calls: Calls, **attributes: str) -> None:
    body = {"messages": [{"payload": PAYLOAD, "attributes": attributes, "ordering_key": "k"}]}
    answer = await calls.client.post("/topics/t/messages", json=body)
    assert answer.status_code == 204, answer.text


async def test_cloudevents_in_headers(calls: Calls, endpoint: Endpoint) -> None:
    endpoint.answers = welcoming
    await pushed(calls, endpoint, format="cloudevents")
    await publish(calls, color="grün", Not_an_extension="x")
    asked, got = await endpoint.until(2)
    assert (asked.method, asked.headers["webhook-request-origin"]) == ("OPTIONS", "fastpubsub")
    assert json.loads(got.body) == PAYLOAD
    assert got.headers["content-type"] == "application/json"
    context = {name: value for name, value in got.headers.items() if name.startswith("ce-")}
    assert context["ce-id"] == got.headers["webhook-id"]
    assert context["ce-color"] == "gr%C3%BCn"
    assert context["ce-partitionkey"] == "k"
    assert context.keys() == {
        f"ce-{name}" for name in ("specversion", "id", "source", "type", "time", "color", "partitionkey")
    }


async def test_cloudevents_as_json(calls: Calls, endpoint: Endpoint) -> None:
    endpoint.answers = welcoming
    await pushed(calls, endpoint, format="cloudevents-structured")
    await publish(calls, color="grün")
    _, got = await endpoint.until(2)
    assert got.headers["content-type"] == "application/cloudevents+json"
    event = json.loads(got.body)
    assert (event["data"], event["color"], event["id"]) == (PAYLOAD, "grün", got.headers["webhook-id"])


async def test_pubsub(calls: Calls, endpoint: Endpoint) -> None:
    secret = await pushed(calls, endpoint, format="pubsub")
    await publish(calls, color="grün")
    (got,) = await endpoint.until(1)
    body = json.loads(got.body)
    message = body["message"]
    assert json.loads(b64decode(message["data"])) == PAYLOAD
    assert message["attributes"] == {"color": "grün"}
    assert message["messageId"] == message["message_id"] == got.headers["webhook-id"]
    assert message["publishTime"] == message["publish_time"]
    assert message["orderingKey"] == "k"
    assert (body["subscription"], body["deliveryAttempt"]) == ("projects/fastpubsub/subscriptions/s", 1)
    signed = sign([key_of(secret)], message["messageId"], int(got.headers["webhook-timestamp"]), got.body)
    assert got.headers["webhook-signature"] == signed


async def test_an_endpoint_that_takes_no_events_is_named(
    calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient
) -> None:
    endpoint.answers = lambda _: answer(405, b"POST only")
    await pushed(calls, endpoint, format="cloudevents")
    status = await until_status(client, breaker="open")
    assert "it answered 405 to OPTIONS, and not 2xx" in status["last_failure"]
    push = {"endpoint": f"http://127.0.0.1:{harness.free_port()}/", "format": "cloudevents"}
    success(await client.patch("/subscriptions/s", json={"push": push}), 200)
    async with asyncio.timeout(PATIENCE):
        while "no connection" not in ((await until_status(client, is_held=True))["last_failure"] or ""):
            pass
    assert [one.method for one in endpoint.received] == ["OPTIONS"] * len(endpoint.received)


async def test_nothing_before_an_endpoint_agrees(calls: Calls, endpoint: Endpoint) -> None:
    allowed = "eventemitter.example.com"

    def answers(request: Received) -> bytes:
        return answer(204) if request.method == "POST" else answer(200, WebHook_Allowed_Origin=allowed)

    endpoint.answers = answers
    await pushed(calls, endpoint, format="cloudevents")
    await publish(calls)
    await endpoint.until(1)
    assert await calls.counts() == (1, 0, 0, 0)
    allowed = "other, fastpubsub"
    await endpoint.until_posted()
    *asked, last = [one.method for one in endpoint.received]
    assert (set(asked), len(asked) > 1, last) == ({"OPTIONS"}, True, "POST")
    await until_counts(calls, (0, 0, 1, 0))


@pytest.mark.parametrize("nasty", ["x\r\nEvil: 1\r\n\r\n", "\n", "", "ä", "\ud7ff", " ", "%0d%0a", "a" * 1000])
async def test_publishers_write_no_headers(calls: Calls, endpoint: Endpoint, nasty: str) -> None:
    """Whatever they say, the request has the headers that it always has, and one body."""
    endpoint.answers = welcoming
    await pushed(calls, endpoint, format="cloudevents")
    await publish(calls, datacontenttype=nasty, color=nasty, subject=nasty)
    _, got = await endpoint.until(2)
    assert json.loads(got.body) == PAYLOAD
    assert "evil" not in got.headers
    assert unquote(got.headers.get("ce-color", "")) == nasty
    await until_counts(calls, (0, 0, 1, 0))
    assert len(endpoint.received) == 2


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("format", ["standard", "cloudevents", "cloudevents-structured", "pubsub"])
async def test_the_trace_of_a_message_is_in_headers(calls: Calls, endpoint: Endpoint, format: str) -> None:  # noqa: A002 - its name
    endpoint.answers = welcoming
    await pushed(calls, endpoint, format=format)
    await publish(calls, traceparent=TRACE, tracestate="vendor=1")
    got = (await endpoint.until(2 if format.startswith("cloudevents") else 1))[-1]
    assert (got.headers["traceparent"], got.headers["tracestate"]) == (TRACE, "vendor=1")


@pytest.mark.parametrize(
    "traceparent",
    ["", "00", f"{TRACE}\r\nX-Injected: 1", f"{TRACE}\n", TRACE.upper(), TRACE.replace("00-", "ff-", 1), f"{TRACE}é"],
)
async def test_what_is_no_trace_is_in_no_header(calls: Calls, endpoint: Endpoint, traceparent: str) -> None:
    await pushed(calls, endpoint)
    await publish(calls, traceparent=traceparent, tracestate="vendor=1")
    (got,) = await endpoint.until(1)
    assert not {"traceparent", "tracestate", "x-injected"} & got.headers.keys()


@pytest.mark.parametrize("tracestate", ["a\r\nX-Injected: 1", "é", "a" * 513, " "])
async def test_a_trace_without_a_state_that_is_none(calls: Calls, endpoint: Endpoint, tracestate: str) -> None:
    await pushed(calls, endpoint)
    await publish(calls, traceparent=TRACE, tracestate=tracestate)
    (got,) = await endpoint.until(1)
    assert got.headers["traceparent"] == TRACE
    assert not {"tracestate", "x-injected"} & got.headers.keys()


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "TRACEPARENT", "tracestate"])
def test_a_header_that_users_may_set_is_sent_once(name: str) -> None:
    message = PushedMessage("id", "s", 1, datetime.now(UTC), b"{}", b'{"traceparent": "%s"}' % TRACEPARENT.encode())
    request = posted(Place("https://a.example"), replacing({name: "mine"}), "standard", [], message, 0)
    lines = [line for line in request.split(b"\r\n") if line.lower().startswith(f"{name.lower()}:".encode())]
    assert [line.partition(b": ")[2] for line in lines] == [b"mine"]
