"""Looking without taking: what an answer shows, to whom, and what is refused. Data rules: test_browse_messages.py."""

import json

import httpx
import pytest

from fastpubsub.config import Settings
from tests.api.calls import Calls, Json, ids_of, payloads, problem, success
from tests.api.conftest import Tokens
from tests.attacks import KEY
from tests.conftest import MakeSettings
from tests.together import together

pytestmark = pytest.mark.shared_application

TOPIC = "/topics/t/messages"
BROWSE = "/subscriptions/s/messages/browse"


async def look(client: httpx.AsyncClient, path: str = TOPIC, **parameters: str | int) -> Json:
    found: Json = success(await client.get(path, params=parameters), 200)
    return found


async def test_a_topic(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    assert await look(client) == {"data": [], "looked_at": 0, "next": None, "previous": None}
    ids = await calls.publish(*({"n": n} for n in range(12)))
    newest = await look(client)
    assert (ids_of(newest["data"]), newest["previous"], newest["next"]) == (ids[2:], 3, None)
    assert newest["data"][0].keys() == {"id", "position", "created_at", "payload"}
    older = await look(client, before=3)
    assert (ids_of(older["data"]), older["previous"], older["next"]) == (ids[:2], None, 3)
    for start in (ids[4], ids[4].upper(), "5"):
        page = await look(client, limit=2, **{"from": start})
        assert (ids_of(page["data"]), page["next"], page["previous"]) == (ids[4:6], 7, 5)
    by_time = await look(client, limit=1, **{"from": newest["data"][-1]["created_at"]})
    assert by_time["data"][0]["created_at"] == newest["data"][-1]["created_at"]


async def test_payloads_are_verbatim(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish_text('{"n":  1.50e1, "n": "Ren\\u00e9"}')
    for path in (TOPIC, BROWSE):
        response = await client.get(path)
        assert '"payload":{"n":  1.50e1, "n": "Ren\\u00e9"}' in response.text
        assert len((await look(client, path, q="rené"))["data"]) == 1
        assert (await look(client, path, q="RENÉ"))["data"] == []


async def test_every_state(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=600)
    await calls.publish(*({"n": n} for n in range(1, 6)))
    _, second, third = await calls.pull(3)
    await calls.nack(second["ack_id"])
    await calls.reject(third["ack_id"], reason="</script> no")
    members = {"id", "position", "created_at", "payload", "state", "delivery_attempts"}
    more = {
        "ahead": set(),
        "leased": {"leased_at", "lease_expires_at", "consumer_id"},
        "waiting": {"due_at", "reason", "failures"},
        "dead": {"died_at", "reason", "failures"},
    }
    for state, own in more.items():
        page = await look(client, BROWSE, state=state, limit=1)
        (message,) = page["data"]
        assert (message["state"], message.keys()) == (state, members | own)
        assert (page["next"], page["looked_at"]) == (5 if state == "ahead" else None, 1)
    assert (await look(client, BROWSE))["data"][0]["delivery_attempts"] == 0
    assert (await calls.counts())[:2] == (3, 1)


async def test_waiting_messages_page_by_page(client: httpx.AsyncClient, calls: Calls) -> None:
    """Many are due at the same moment."""
    await calls.topic_and_subscription(backoff_min_seconds=600)
    ids = await calls.publish(*({} for _ in range(5)))
    await calls.nack(*ids_of(await calls.pull(), "ack_id"))
    pages: list[str] = []
    more: dict[str, str] = {}
    while more.get("from", "") is not None:
        page = await look(client, BROWSE, state="waiting", limit=2, **more)
        pages += ids_of(page["data"])
        more = {"from": page["next"]}
    assert pages == ids


async def test_a_search_says_how_far_it_came(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish(*({"n": n % 3, "name": f"n{n}"} for n in range(9)))
    for path in (TOPIC, BROWSE):
        found = await look(client, path, q="payload.n=2", limit=2)
        assert len(found["data"]) == 2
        assert (found["looked_at"], found["next"]) == ((4, None) if path == TOPIC else (6, 7))
        assert (await look(client, path, q="nowhere"))["looked_at"] == 9
    backwards = await look(client, q="payload.n=2", limit=2)
    assert [message["position"] for message in backwards["data"]] == [6, 9]
    assert (await look(client, q="payload.n=2", before=backwards["previous"]))["data"][0]["position"] == 3


HOSTILE = [
    "(a+)+$",
    "%",
    "_",
    "\\",
    '"',
    "'; drop table x",
    "payload.=",
    "payload.a=" + "[" * 240,
    'payload.a="\\u0000"',
    "payload.a=1e99999999",
    'payload.a={"b":',
    "attributes.=",
    "attributes.a=" + "ü" * 200,
    "\U0001f600",
    "a" * 256,
]


EVERYWHERE = {'"': 2, "a" * 256: 1}
"""These are in payloads."""


async def test_hostile_searches(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"a": "a" * 1_000_000}, {"a": {"deep": [[[1]]]}})
    for q in HOSTILE:
        for path in (TOPIC, BROWSE):
            found = await look(client, path, q=q)
            assert (q, len(found["data"])) == (q, EVERYWHERE.get(q, 0))


@together(
    "parameters, words",
    [
        ({"limit": 101}, "less than or equal to 100"),
        ({"limit": 0}, "greater than or equal to 1"),
        ({"limit": "9" * 400}, "limit"),
        ({"q": ""}, "at least 1 character"),
        ({"q": "a" * 257}, "at most 256 characters"),
        ({"q": "a\0b"}, "NUL"),
        ({"from": "1" * 19}, "a position, a message id, or a time"),
        ({"from": "-1"}, "a position, a message id, or a time"),
        ({"from": "yesterday"}, "a position, a message id, or a time"),
        ({"from": "2026-01-31"}, "a position, a message id, or a time"),
        ({"from": "0" * 65}, "at most 64 characters"),
        ({"from": "550e8400-e29b-41d4-a716-446655440000"}, "not a message of this topic"),
        ({"form": "1"}, "unknown"),
    ],
)
async def test_what_is_refused(
    client: httpx.AsyncClient, calls: Calls, parameters: dict[str, str | int], words: str
) -> None:
    await calls.ready()
    for path in (TOPIC, BROWSE):
        assert words in problem(await client.get(path, params=parameters), 422)


async def test_what_is_refused_of_one_alone(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    assert "not both" in problem(await client.get(TOPIC, params={"from": 1, "before": 2}), 422)
    assert "state" in problem(await client.get(BROWSE, params={"state": "settled"}), 422)
    assert "when they are due" in problem(await client.get(BROWSE, params={"state": "waiting", "from": "7"}), 422)
    problem(await client.get("/topics/none/messages"), 404)
    problem(await client.get("/subscriptions/none/messages/browse"), 404)


class TestScopes:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_who_sees_what(self, client: httpx.AsyncClient, calls: Calls, token: Tokens) -> None:
        client.headers.update(token("*"))
        await calls.topic_and_subscription()
        envelope = {"messages": [{"payload": {"card": "4111"}, "attributes": {"card": "4111"}}]}
        success(await client.post(TOPIC, json=envelope), 204)
        for path, scope, other in ((TOPIC, "topics:read", "u"), (BROWSE, "subscriptions:read", "u")):
            for narrow in (scope, f"{scope}:{'t' if path == TOPIC else 's'}"):
                seen = await client.get(path, headers=token(f"{narrow} messages:read:{other}"))
                assert success(seen, 200)["data"][0]["position"] == 1
                assert "4111" not in seen.text
                refused = await client.get(path, params={"q": "4111"}, headers=token(narrow))
                assert "messages:read" in problem(refused, 403)
                for reads in ("messages:read", "messages:read:t"):
                    whole = await client.get(path, params={"q": "4111"}, headers=token(f"{narrow} {reads}"))
                    (message,) = success(whole, 200)["data"]
                    assert (message["payload"], message["attributes"]) == ({"card": "4111"}, {"card": "4111"})
            problem(await client.get(path, headers=token(f"{scope}:other messages:read")), 403)
            problem(await client.get(path, headers=token("messages:read topics:consume")), 403)


async def test_bytes_are_bounded(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    for n in range(12):
        await calls.publish({"n": n, "a": "x" * 1_000_000})
    page = await look(client, limit=12)
    assert (len(page["data"]), page["previous"]) == (10, 3)
    assert [one["n"] for one in payloads((await look(client, before=page["previous"]))["data"])] == [0, 1]
    assert len(json.dumps(page)) < 11_000_000
