"""Who changed what: every route that changes an object is recorded, in the transaction of the change."""

import re
from typing import Any

import httpx
import pytest

from fastpubsub.api.security import ScopedRoute
from fastpubsub.config import Settings
from fastpubsub.services.changes import trim_changes
from tests.api.calls import JSON, Calls, Json, ids_of, problem, success
from tests.api.conftest import app_of
from tests.conftest import Connect, MakeSettings

pytestmark = pytest.mark.shared_application

STRANGER = "550e8400-e29b-41d4-a716-446655440000"
NOT_CHANGES = {
    "publish_messages",
    "run_transaction",
    "move_delayed_message",
    "cancel_delayed_message",
    "settle_and_pull",
    "ack_messages",
    "nack_messages",
    "reject_messages",
    "extend_leases",
    "end_waits",
    "test_filter_of_topic",
    "test_filter_of_subscription",
    "create_token",
    "create_introspection",
}
"""The message path, questions with a body, and tokens."""


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(push_secret_key="k" * 32, push_enabled=False)


async def recorded(client: httpx.AsyncClient, **wanted: Any) -> list[Json]:
    changes: list[Json] = success(await client.get("/audit", params={"limit": 100, **wanted}), 200)["data"]
    return changes


async def test_every_change(client: httpx.AsyncClient, calls: Calls) -> None:
    """A new route must be added here, or to what is not a change."""
    made: list[tuple[str, str, str, Any]] = []

    async def send(name: str, object_: str, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        response = await client.request(method, path, json=body, headers={"X-Request-ID": f"r-{len(made)}"})
        answer = success(response, status)
        made.append((name, object_, (path.split("/")[2:] or [answer["id"]])[0], body))
        return answer

    topic = {"id": "t", "retention_seconds": 5}
    await send("create_topic", "topic", "POST", "/topics", topic, 201)
    await send("update_topic", "topic", "PATCH", "/topics/t", {"retention_seconds": 6})
    await send("release_delayed_messages", "topic", "POST", "/topics/t/release")
    await send("publish_refused_messages", "topic", "POST", "/topics/t/refused/publish", ["refused-1"], 204)
    await send("purge_refused_messages", "topic", "DELETE", "/topics/t/refused", ["refused-1"], 204)
    schedule = "/topics/t/schedules/tick"
    await send("create_schedule", "topic", "POST", "/topics/t/schedules", {"id": "tick", "interval_seconds": 3600}, 201)
    await send("update_schedule", "topic", "PATCH", schedule, {"payload": {"a": 1}})
    for verb in ("pause", "resume", "fire"):
        await send(f"{verb}_schedule", "topic", "POST", f"{schedule}/{verb}")
    await send("delete_schedule", "topic", "DELETE", schedule, None, 204)
    await send("create_subscription", "subscription", "POST", "/subscriptions", {"id": "s", "topic_id": "t"}, 201)
    await send("update_subscription", "subscription", "PATCH", "/subscriptions/s", {"filter": {"a": [1]}})
    push = {"push": {"endpoint": "https://8.8.8.8/hook", "timeout_seconds": 0.001}}
    await send("update_subscription", "subscription", "PATCH", "/subscriptions/s", push)
    await send("rotate_push_secret", "subscription", "POST", "/subscriptions/s/push/secrets", {}, 201)
    message = {"message_id": (await calls.publish({"a": 1}))[0]}
    await send("test_push", "subscription", "POST", "/subscriptions/s/push/test", {})
    made[-1] = (*made[-1][:3], None)  # payloads are not recorded
    await send("resend_message", "subscription", "POST", "/subscriptions/s/push/resend", message)
    await send("update_subscription", "subscription", "PATCH", "/subscriptions/s", {"push": None})
    await send("seek_subscription", "subscription", "POST", "/subscriptions/s/seek", {"to": "earliest"}, 204)
    await send("purge_subscription", "subscription", "POST", "/subscriptions/s/purge")
    await send("pause_subscription", "subscription", "POST", "/subscriptions/s/pause")
    await send("resume_subscription", "subscription", "POST", "/subscriptions/s/resume")
    await calls.publish(*({"a": 1} for _ in range(2)))
    one, two = ids_of(await calls.pull())
    await calls.reject(one, two)
    one, two = one.partition(".")[0], two.partition(".")[0]
    await send("reprocess_dead_letters", "subscription", "POST", "/subscriptions/s/dlq/reprocess", [one], 204)
    await send("purge_dead_letters", "subscription", "DELETE", "/subscriptions/s/dlq", [two], 204)
    begun = await send("create_redrive", "subscription", "POST", "/subscriptions/s/redrives", {"action": "purge"}, 201)
    await send("cancel_redrive", "subscription", "DELETE", f"/subscriptions/s/redrives/{begun['id']}", None, 204)
    new = {"name": "shop", "scopes": "topics:read"}
    made_client = await send("create_client", "client", "POST", "/clients", new, 201)
    path = f"/clients/{made_client['id']}"
    await send("update_client", "client", "PUT", path, {**new, "name": "store"})
    rotated = await send("rotate_client_secret", "client", "POST", f"{path}/secrets", {"old_secret_seconds": 5}, 201)
    await send("revoke_client_secret", "client", "DELETE", f"{path}/secrets/old", None, 204)
    await send("delete_client", "client", "DELETE", path, None, 204)
    await send("delete_subscription", "subscription", "DELETE", "/subscriptions/s", None, 204)
    await send("delete_topic", "topic", "DELETE", "/topics/t", None, 204)

    found = (await recorded(client))[::-1]
    shown = [(one["action"], one["object"], one["object_id"], one["details"]) for one in found]
    assert shown == made
    assert {one["client_id"] for one in found} == {"anonymous"}
    assert [one["request_id"] for one in found] == [f"r-{n}" for n in range(len(found))]
    assert rotated["secret"] not in str(found)
    assert made_client["secret"] not in str(found)
    changing = {
        route.name
        for route in app_of(client).routes
        if isinstance(route, ScopedRoute) and not (route.methods or set()) <= {"GET", "HEAD"}
    }
    assert {name for name, *_ in made} == changing - NOT_CHANGES


async def test_a_refused_change_is_not_recorded(client: httpx.AsyncClient) -> None:
    problem(await client.delete("/topics/nowhere"), 404)
    problem(await client.post("/subscriptions", json={"id": "s", "topic_id": "nowhere"}), 404)
    assert await recorded(client) == []


@pytest.mark.parametrize("body", [b"xyz", b"\xff", b"[" * 3000, b'{"a": "\\ud800"}'])
async def test_a_body_that_nobody_reads_is_not_kept(client: httpx.AsyncClient, calls: Calls, body: bytes) -> None:
    await calls.topic_and_subscription()
    routes = [route for route in app_of(client).routes if isinstance(route, ScopedRoute) and route.methods != {"GET"}]
    for route in sorted(routes, key=lambda route: route.methods == {"DELETE"}):
        method = "".join(route.methods or ())
        path = re.sub(r"{which}", "old", re.sub(r"{client_id}", STRANGER, route.path))
        path = re.sub(r"{\w+}", lambda match: {"topic_id": "t", "redrive_id": "1"}.get(match[0][1:-1], "s"), path)
        response = await client.request(method, path, content=body, headers=JSON)
        assert response.status_code < 500, (method, path, response.text)
    assert {one["action"]: one["details"] for one in await recorded(client)}["pause_subscription"] is None


async def test_a_long_body_is_not_kept(client: httpx.AsyncClient) -> None:
    schema = {"description": "d" * 5000}
    success(await client.post("/topics", json={"id": "t", "schema": schema}), 201)
    (change,) = await recorded(client)
    assert 5000 < change["details"]["body_bytes"] < 5100


async def test_what_is_asked_for(client: httpx.AsyncClient, calls: Calls) -> None:
    for name in ("a", "b", "c"):
        await calls.topic(name)
        await calls.subscription(name, topic=name)
    assert [one["object_id"] for one in await recorded(client, object="topic")] == ["c", "b", "a"]
    (one,) = await recorded(client, object="subscription", object_id="b")
    assert await recorded(client, client_id="somebody") == []
    assert len(await recorded(client, after=one["at"])) == 3
    assert len(await recorded(client, before=one["at"])) == 3
    pages: list[list[str]] = []
    token: dict[str, str] = {}
    while True:
        page = success(await client.get("/audit", params={"limit": 4, **token}), 200)
        pages.append([change["object_id"] for change in page["data"]])
        if "next_page_token" not in page:
            break
        token = {"page_token": page["next_page_token"]}
    assert pages == [["c", "c", "b", "b"], ["a", "a"]]
    for wrong in ("object=queue", "page_token=x", "page_token=-1", f"page_token={'9' * 30}", "after=yesterday", "q=1"):
        problem(await client.get(f"/audit?{wrong}"), 422)


async def test_old_changes_are_trimmed(client: httpx.AsyncClient, calls: Calls, connect: Connect) -> None:
    await calls.topic("old")
    await (await connect()).execute("update fastpubsub.changes set changed_at = changed_at - interval '91 days'")
    await calls.topic("new")
    state = app_of(client).state
    assert state.settings.audit_retention_seconds == 90 * 86400
    await trim_changes(state.database, state.settings.audit_retention_seconds)
    assert [one["object_id"] for one in await recorded(client)] == ["new"]
