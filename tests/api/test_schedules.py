"""Schedules, over HTTP."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import pytest

from fastpubsub.config import Settings
from tests.api.calls import JSON, Calls, Json, payloads, problem, success
from tests.api.conftest import Tokens, app_of
from tests.attacks import KEY
from tests.conftest import Connect, MakeSettings

pytestmark = pytest.mark.shared_application

PATH = "/topics/t/schedules"
ONE = f"{PATH}/tick"
DAILY: Json = {"id": "tick", "cron": "0 9 * * *", "time_zone": "Europe/Berlin", "payload": {"n": 1}}
HOURLY: Json = {"id": "tick", "interval_seconds": 3600}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def create(client: httpx.AsyncClient, **body: object) -> Json:
    created: Json = success(await client.post(PATH, json=body), 201)
    return created


async def test_a_schedule_is_created_and_shown(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    body = DAILY | {"attributes": {"a": "b"}, "ordering_key": "k", "catch_up": "all"}
    created = await create(client, **body)
    assert created == body | {
        "topic_id": "t",
        "created_at": created["created_at"],
        "next_at": created["next_at"],
        "upcoming": created["upcoming"],
        "fired": 0,
        "missed": 0,
    }
    upcoming = [at(one) for one in created["upcoming"]]
    assert len(upcoming) == 5
    assert upcoming[0] == at(created["next_at"]) > datetime.now(UTC) - timedelta(minutes=1)
    assert all(timedelta(hours=23) <= later - one <= timedelta(hours=25) for one, later in pairwise(upcoming))
    assert success(await client.get(ONE), 200) == created
    del created["upcoming"]
    assert success(await client.get(PATH), 200) == {"data": [created]}


async def test_what_is_left_out_has_defaults(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    created = await create(client, id="tick", cron="* * * * *")
    assert (created["time_zone"], created["payload"], created["catch_up"]) == ("UTC", {}, "once")
    assert created.keys().isdisjoint({"attributes", "ordering_key", "interval_seconds", "is_paused", "problem"})


async def test_it_publishes_at_its_times(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await create(client, id="tick", interval_seconds=1, payload={"n": 1}, attributes={"a": "b"})
    pulled: list[Json] = []
    while len(pulled) < 2:
        pulled += success(await client.get("/subscriptions/s/messages?consumer_id=c&wait_seconds=5"), 200)["data"]
    first, second = (one["attributes"] for one in pulled[:2])
    assert (first["a"], first["schedule_id"]) == ("b", "tick")
    assert at(first["scheduled_at"]) < at(second["scheduled_at"])
    success(await client.post(f"{ONE}/pause"), 200)
    found = success(await client.get(ONE), 200)
    assert found["fired"] >= 2
    assert "next_at" not in found
    assert at(found["last_fired_at"]) <= datetime.now(UTC) + timedelta(minutes=1)
    assert (await client.get(f"/subscriptions/s/messages/{found['last_message_id']}")).status_code == 200


async def test_by_hand(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    created = await create(client, **HOURLY, payload={"n": 1.10})
    fired = success(await client.post(f"{ONE}/fire"), 200)
    assert (fired["fired"], fired["next_at"]) == (1, created["next_at"])
    (message,) = await calls.pull()
    assert (message["id"], message["payload"]) == (fired["last_message_id"], {"n": 1.1})
    success(await client.post(f"{ONE}/pause"), 200)
    assert success(await client.post(f"{ONE}/fire"), 200)["fired"] == 2


async def test_payloads_stay_as_they_were_written(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    body = b'{"id": "tick", "interval_seconds": 3600, "payload": {"n":  1.10, "m": 1e400}}'
    created = await client.post(PATH, content=body, headers=JSON)
    assert '{"n":  1.10, "m": 1e400}' in created.text
    patched = await client.patch(ONE, content=b'{"catch_up": "all"}', headers=JSON)
    assert '{"n":  1.10, "m": 1e400}' in patched.text
    success(await client.post(f"{ONE}/fire"), 200)
    assert '{"n":  1.10, "m": 1e400}' in await calls.pull_text()


async def test_changing(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    created = await create(client, **DAILY, attributes={"a": "b"}, ordering_key="k")

    async def change(**body: object) -> Json:
        changed: Json = success(await client.patch(ONE, json=body), 200)
        return changed

    changed = await change(payload={"n": 2}, attributes=None)
    assert (changed["payload"], changed["ordering_key"], changed["next_at"]) == ({"n": 2}, "k", created["next_at"])
    assert "attributes" not in changed
    elsewhere = await change(time_zone="America/New_York")
    assert (elsewhere["cron"], elsewhere["time_zone"]) == ("0 9 * * *", "America/New_York")
    assert elsewhere["next_at"] != created["next_at"]
    interval = await change(interval_seconds=60, ordering_key=None)
    assert interval.keys().isdisjoint({"cron", "time_zone", "ordering_key"})
    assert "one of them" in problem(await client.patch(ONE, json={"cron": "* * * * *", "interval_seconds": 5}), 422)
    assert "has an interval" in problem(await client.patch(ONE, json={"time_zone": "UTC"}), 422)
    cron = await change(cron="* * * * *")
    assert (cron["cron"], cron["time_zone"]) == ("* * * * *", "UTC")
    assert "interval_seconds" not in cron


async def test_pausing(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    await create(client, **HOURLY)
    paused = success(await client.post(f"{ONE}/pause"), 200)
    assert paused["is_paused"]
    assert paused.keys().isdisjoint({"next_at", "upcoming"})
    assert success(await client.post(f"{ONE}/pause"), 200)["paused_at"] == paused["paused_at"]
    assert "next_at" not in success(await client.patch(ONE, json={"interval_seconds": 60}), 200)
    resumed = success(await client.post(f"{ONE}/resume"), 200)
    assert resumed.keys().isdisjoint({"is_paused", "paused_at"})
    assert success(await client.post(f"{ONE}/resume"), 200)["next_at"] == resumed["next_at"]
    assert at(resumed["next_at"]) - at(paused["paused_at"]) >= timedelta(seconds=60)


async def test_the_list_goes_on(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    for id_ in ("b", "c", "a"):
        await create(client, id=id_, interval_seconds=60)
    page = success(await client.get(PATH, params={"limit": 2}), 200)
    rest = success(await client.get(PATH, params={"page_token": page["next_page_token"]}), 200)
    assert [one["id"] for one in page["data"] + rest["data"]] == ["a", "b", "c"]
    assert "next_page_token" not in rest


async def test_deleting(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    await create(client, **HOURLY)
    assert (await client.delete(ONE)).status_code == 204
    for response in (
        await client.get(ONE),
        await client.delete(ONE),
        await client.patch(ONE, json={"interval_seconds": 5}),
        *[await client.post(f"{ONE}/{verb}") for verb in ("pause", "resume", "fire")],
    ):
        assert '"tick"' in problem(response, 404)
    await create(client, **HOURLY)
    assert (await client.delete("/topics/t")).status_code == 204
    await calls.topic()
    assert success(await client.get(PATH), 200) == {"data": []}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "one of them"),
        ({"cron": "* * * * *", "interval_seconds": 5}, "one of them"),
        ({"interval_seconds": 5, "time_zone": "UTC"}, "belongs to `cron`"),
        ({"interval_seconds": 0}, "interval_seconds"),
        ({"interval_seconds": 31_536_001}, "interval_seconds"),
        ({"interval_seconds": True}, "interval_seconds"),
        ({"cron": "x * * * *"}, "Bad minute"),
        ({"cron": "@daily"}, "five fields"),
        ({"cron": "1 " * 200}, "cron"),
        ({"cron": "* * * * *", "time_zone": "Mars"}, "not a time zone"),
        ({"interval_seconds": 5, "payload": []}, "payload"),
        ({"interval_seconds": 5, "attributes": {"a": 1}}, "strings"),
        ({"interval_seconds": 5, "attributes": {"scheduled_at": "x"}}, "use another name"),
        ({"interval_seconds": 5, "attributes": {"": "x"}}, "too long"),
        ({"interval_seconds": 5, "ordering_key": ""}, "ordering_key"),
        ({"interval_seconds": 5, "catch_up": "most"}, "catch_up"),
        ({"interval_seconds": 5, "surprise": 1}, "surprise"),
    ],
)
async def test_what_is_refused(client: httpx.AsyncClient, calls: Calls, body: Json, word: str) -> None:
    await calls.topic()
    assert word in problem(await client.post(PATH, json={"id": "tick"} | body), 422)
    assert success(await client.get(PATH), 200) == {"data": []}


async def test_names(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    await calls.topic("u")
    await create(client, **HOURLY)
    assert "already exists" in problem(await client.post(PATH, json=HOURLY), 409)
    success(await client.post("/topics/u/schedules", json=HOURLY), 201)
    problem(await client.post(PATH, json=HOURLY | {"id": "a/b"}), 422)
    for response in (
        await client.get("/topics/nowhere/schedules"),
        await client.post("/topics/nowhere/schedules", json=HOURLY),
        await client.get("/topics/nowhere/schedules/tick"),
        await client.delete("/topics/nowhere/schedules/tick"),
        await client.post("/topics/nowhere/schedules/tick/fire"),
    ):
        assert "nowhere" in problem(response, 404)
    assert "null" in problem(await client.patch(ONE, json={"payload": None}), 422)
    problem(await client.patch(ONE, json={}), 422)


async def test_the_schema_judges_at_the_creation_and_at_each_time(
    client: httpx.AsyncClient, calls: Calls, connect: Connect
) -> None:
    await calls.topic_and_subscription(topic="t")
    success(await client.patch("/topics/t", json={"schema": {"required": ["n"]}}), 200)
    assert "schema" in problem(await client.post(PATH, json=HOURLY), 422)
    created = await create(client, **HOURLY, payload={"n": 1})
    assert "schema" in problem(await client.patch(ONE, json={"payload": {}}), 422)
    success(await client.post(f"{ONE}/fire"), 200)
    success(await client.patch("/topics/t", json={"schema": {"required": ["m"]}}), 200)
    assert "schema" in problem(await client.post(f"{ONE}/fire"), 422)
    connection = await connect()
    await connection.execute("update fastpubsub.schedules set next_at = clock_timestamp() - interval '1 second'")
    while "problem" not in (found := success(await client.get(ONE), 200)):  # noqa: ASYNC110 - nobody tells it
        await asyncio.sleep(0.05)
    assert '"m" is a required property' in found["problem"]
    assert (found["missed"], found["fired"]) == (1, 1)
    assert at(found["next_at"]) > at(created["created_at"])
    assert payloads(await calls.pull()) == [{"n": 1}]
    assert "problem" not in success(await client.patch(ONE, json={"payload": {"m": 1}}), 200)


async def test_what_was_missed_for_long_does_not_come_after_a_restore(
    client: httpx.AsyncClient, calls: Calls, connect: Connect, settings: Settings
) -> None:
    await calls.topic_and_subscription()
    await create(client, id="old", cron="0 0 1 1 *")
    await create(client, id="recent", interval_seconds=3600)
    connection = await connect()
    age = timedelta(seconds=2 * settings.delayed_max_overdue_seconds)
    await connection.execute("update fastpubsub.schedules set next_at = clock_timestamp() - %s where id = 'old'", [age])
    query = "update fastpubsub.schedules set next_at = clock_timestamp() - interval '150 minutes' where id = 'recent'"
    await connection.execute(query)

    async def found(id_: str) -> Json:
        one: Json = success(await client.get(f"{PATH}/{id_}"), 200)
        return one

    # As the first look of a server does.
    app_of(client).state.schedulers.look(None)
    while (await found("recent"))["fired"] == 0 or (await found("old"))["missed"] == 0:  # noqa: ASYNC110 - nobody tells it
        await asyncio.sleep(0.05)
    assert ((await found("old"))["fired"], (await found("old"))["missed"]) == (0, 1)
    assert ((await found("recent"))["fired"], (await found("recent"))["missed"]) == (1, 2)
    assert [one["attributes"]["schedule_id"] for one in await calls.pull()] == ["recent"]


class TestWithScopes:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_payloads_need_a_scope_of_their_own(self, client: httpx.AsyncClient, token: Tokens) -> None:
        everything = token("*")
        await client.post("/topics", json={"id": "t"}, headers=everything)
        publisher = token("topics:publish:t")
        body = DAILY | {"attributes": {"secret": "1"}}
        created = success(await client.post(PATH, json=body, headers=publisher), 201)
        assert created.keys().isdisjoint({"payload", "attributes"})
        shown = success(await client.get(ONE, headers=token("topics:read:t messages:read:t")), 200)
        assert (shown["payload"], shown["attributes"]) == ({"n": 1}, {"secret": "1"})
        (listed,) = success(await client.get(PATH, headers=token("topics:read")), 200)["data"]
        assert listed.keys().isdisjoint({"payload", "attributes"})
        problem(await client.get(ONE, headers=publisher), 403)
        problem(await client.post(f"{ONE}/fire", headers=token("topics:publish:u")), 403)
