"""Lists with figures, and the whole server at one look. Data rules: tests/database/test_figures.py."""

from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest

from fastpubsub.config import Settings
from fastpubsub.services import findings as service
from fastpubsub.services.findings import Load, findings, worst
from fastpubsub.services.history import Recorder
from tests.api.calls import Calls, Json, problem, success
from tests.api.conftest import Tokens, app_of, one_after_the_other
from tests.attacks import KEY
from tests.conftest import MakeSettings


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(auth_enabled=True, auth_secret_key=KEY)


@pytest.fixture(autouse=True)
def writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the background counted a moment ago is stored when a test has written the rest."""
    one_after_the_other(monkeypatch, Recorder, "write")


async def get(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> Json:
    found: Json = success(await client.get(path, headers=headers), 200)
    return found


@pytest.fixture
async def admin(client: httpx.AsyncClient, token: Tokens) -> dict[str, str]:
    headers = token("*")
    client.headers.update(headers)
    calls = Calls(client)
    for name in ("t", "u"):
        await calls.topic(name)
        await calls.subscription(f"s-{name}", name, filter={"a": [1]})
        await calls.publish({"a": 1}, {"a": 2}, topic=name)
    for header in headers:
        del client.headers[header]
    return headers


async def test_a_list_goes_on_by_key(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for path, names in (("/topics", ["t", "u"]), ("/subscriptions", ["s-t", "s-u"])):
        first = await get(client, f"{path}?limit=1", admin)
        rest = await get(client, f"{path}?limit=1&page_token={first['next_page_token']}", admin)
        assert [one["id"] for page in (first, rest) for one in page["data"]] == names
        assert "next_page_token" not in rest
        both = problem(await client.get(f"{path}?offset=1&page_token={first['next_page_token']}", headers=admin), 422)
        assert "not both" in both
        for token in ("x", "%00", "..", "Lg", "dB", "dA=="):
            problem(await client.get(f"{path}?page_token={token}", headers=admin), 422)


async def test_a_list_has_figures_when_they_are_asked_for(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    topics = await get(client, "/topics?include=metrics&q=T", admin)
    assert [(one["id"], one["metrics"]["published"]) for one in topics["data"]] == [("t", 2)]
    assert topics["data"][0] == await get(client, "/topics/t?include=metrics", admin)
    success(await client.get("/subscriptions/s-u/messages?consumer_id=c", headers=admin), 200)
    found = await get(client, "/subscriptions?include=metrics&topic_id=u&q=S-", admin)
    (metrics,) = [one["metrics"] for one in found["data"]]
    assert (metrics["delivered"], metrics["filtered"], metrics["available"]) == (1, 1, 0)
    assert metrics["oldest_leased_seconds"] > 0
    one = await get(client, "/subscriptions/s-u?include=metrics", admin)
    assert one["metrics"].keys() == metrics.keys()
    ids = [held["id"] for held in (await get(client, "/subscriptions/s-u/messages/browse?state=leased", admin))["data"]]
    success(await client.post("/subscriptions/s-u/nacks?delay_seconds=60", json=ids, headers=admin), 204)
    success(await client.post("/topics/u/messages", json=[{"a": 1}, {"a": 1}], headers=admin), 204)
    figures = (await get(client, "/subscriptions/s-u?include=metrics", admin))["metrics"]
    assert [figures[name] for name in ("ahead", "delivered", "waiting", "dlq", "available")] == [2, 0, 1, 0, 3]
    assert "metrics" not in await get(client, "/subscriptions/s-u", admin)
    problem(await client.get("/topics?include=everything", headers=admin), 422)


async def test_a_list_of_those_with_dead_letters(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    path = "/subscriptions?has_dead_letters=true"
    assert (await get(client, path, admin))["data"] == []
    (held,) = (await get(client, "/subscriptions/s-u/messages?consumer_id=c", admin))["data"]
    success(await client.post("/subscriptions/s-u/rejects", json={"ids": [held["id"]]}, headers=admin), 204)
    assert [one["id"] for one in (await get(client, path, admin))["data"]] == ["s-u"]
    assert [one["id"] for one in (await get(client, f"{path}&topic_id=t", admin))["data"]] == []
    assert len((await get(client, "/subscriptions?has_dead_letters=false", admin))["data"]) == 2
    problem(await client.get("/subscriptions?has_dead_letters=many", headers=admin), 422)


async def test_the_sums_are_those_of_what_the_caller_may_see(
    client: httpx.AsyncClient, token: Tokens, admin: dict[str, str]
) -> None:
    for scopes, expected in {
        "*": (2, 2, 4, 4),
        "topics:read": (2, 0, 4, 0),
        "topics:read:t": (1, 0, 2, 0),
        "subscriptions:read": (0, 2, 0, 4),
        "subscriptions:read:s-u topics:read:t": (1, 1, 2, 2),
        "subscriptions:read:nothing": (0, 0, 0, 0),
    }.items():
        seen = await get(client, "/overview", token(scopes))
        assert (seen["topics"], seen["subscriptions"], seen["published"], seen["ahead"]) == expected, scopes
        assert seen["is_authentication_on"] is True
    problem(await client.get("/overview", headers=token("topics:publish clients:read")), 403)


async def test_a_dead_letter_is_found_by_those_who_see_its_subscription(
    client: httpx.AsyncClient, token: Tokens, admin: dict[str, str]
) -> None:
    (message,) = (await get(client, "/subscriptions/s-t/messages?consumer_id=c", admin))["data"]
    rejected = {"ids": [message["ack_id"]], "reason": "no"}
    success(await client.post("/subscriptions/s-t/rejects", json=rejected, headers=admin), 204)
    (finding,) = (await get(client, "/overview", token("subscriptions:read:s-t")))["findings"]
    assert (finding["kind"], finding["subscription_id"], finding["topic_id"]) == ("dead_letters", "s-t", "t")
    assert finding["since"]
    assert (await get(client, "/overview", token("subscriptions:read:s-u")))["findings"] == []


def test_the_worst_comes_first() -> None:
    now = datetime.now(UTC)
    old = now - timedelta(hours=3)
    load = Load("t", "s", False, 1, 1, 1, 5, now, old, old, old, 60)
    assert [one.kind for one in worst(findings(load, now))] == [
        "old_lease",
        "old_waiting",
        "dead_letters",
        "pins_the_log",
    ]
    idle = load._replace(dead=0, leased_created_at=now, waiting_created_at=None)
    assert list(findings(idle, now)) == []
    assert len(worst(one for _ in range(50) for one in findings(load, now))) == 100


async def test_what_goes_on_is_held_against_what_was(
    client: httpx.AsyncClient, token: Tokens, admin: dict[str, str]
) -> None:
    """The messages of `t` are an hour old; it was used until then. To `u` comes more than goes."""
    state = app_of(client).state
    ago = "extract(epoch from clock_timestamp())::bigint / 5 * 5"
    history = f"""
        insert into fastpubsub.history (topic_key, subscription_key, at, interval_seconds, published, delivered)
        select s.topic_key, k.key, {ago} - n, 5, (k.key = 0)::integer, (k.key > 0 and %(delivers)s)::integer
        from fastpubsub.subscriptions as s cross join lateral (values (0), (s.subscription_key)) as k (key)
        cross join generate_series(%(from)s, %(to)s, 60) as n where s.id = %(name)s
    """.encode()
    async with await psycopg.AsyncConnection.connect(
        state.settings.database_url.get_secret_value().replace("+psycopg", "")
    ) as connection:
        await state.recorder.write()
        await connection.execute("delete from fastpubsub.history")  # and so of what was published a moment ago
        await connection.execute("update fastpubsub.subscriptions set created_at = created_at - interval '1 day'")
        back = b"""
            update fastpubsub.messages as m
            set created_at = m.created_at - make_interval(mins => case t.id when 't' then 59 else 10 end)
            from fastpubsub.topics as t where m.topic_key = t.topic_key
        """
        await connection.execute(back)
        await connection.execute(history, {"from": 3600, "to": 9000, "name": "s-t", "delivers": True})
        await connection.execute(history, {"from": 60, "to": 240, "name": "s-u", "delivers": False})
    found = (await get(client, "/overview", token("*")))["findings"]
    assert {(one["kind"], one["topic_id"], one["subscription_id"]) for one in found} == {
        ("consumers_silent", "t", "s-t"),
        ("publishers_silent", "t", None),
    }
    for scopes, expected in {
        "topics:read:t": "publishers_silent",
        "subscriptions:read:s-t": "consumers_silent",
    }.items():
        seen = await get(client, "/overview", token(scopes))
        assert [one["kind"] for one in seen["findings"]] == [expected]
    for scopes in ("topics:read:u", "subscriptions:read:nothing"):
        assert (await get(client, "/overview", token(scopes)))["findings"] == []
    success(await client.post("/topics/u/messages", json=[{"a": n} for n in range(9)], headers=admin), 204)
    success(await client.post("/subscriptions/s-t/pause", headers=admin), 200)
    kinds = [one["kind"] for one in (await get(client, "/overview", token("*")))["findings"]]
    assert kinds == ["backlog_grows", "publishers_silent", "paused"]


async def test_a_transaction_that_stays_open(
    client: httpx.AsyncClient, token: Tokens, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "HELD", timedelta(0))
    url = app_of(client).state.settings.database_url.get_secret_value().replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("select pg_current_xact_id()")
        (found,) = (await get(client, "/overview", admin))["findings"]
        assert (found["kind"], found["topic_id"], found["subscription_id"]) == ("held_snapshot", None, None)
        for scopes in ("topics:read:t subscriptions:read", "topics:read subscriptions:read:s-t"):
            assert (await get(client, "/overview", token(scopes)))["findings"] == []


async def test_the_history_of_what_the_caller_may_see(
    client: httpx.AsyncClient, token: Tokens, admin: dict[str, str]
) -> None:
    state = app_of(client).state
    success(await client.get("/subscriptions/s-t/messages?consumer_id=c", headers=admin), 200)
    await Recorder(state.database, state.counters).write()
    # The interval is over for those who ask later. In two steps, so that no row meets the one of ten seconds before.
    async with await psycopg.AsyncConnection.connect(
        state.settings.database_url.get_secret_value().replace("+psycopg", "")
    ) as connection:
        for seconds in (1_000_000, -1_000_010):
            await connection.execute("update fastpubsub.history set at = at + %s", [seconds])
    topic = await get(client, "/topics/t/history", token("topics:read:t"))
    assert (sum(topic["published"]), len(topic["times"]), len(topic["published"])) == (2, 720, 720)
    subscription = await get(client, "/subscriptions/s-t/history?interval_seconds=5", token("subscriptions:read:s-t"))
    assert {name: sum(column) for name, column in subscription.items() if isinstance(column, list)} | {"times": 0} == {
        "times": 0,
        "delivered": 1,
        "acked": 0,
        "nacked": 0,
        "rejected": 0,
        "expired": 0,
        "dead_lettered": 0,
        "filtered": 1,
    }
    for scopes, published, delivered in (
        ("*", 4, 1),
        ("topics:read:t", 2, 0),
        ("subscriptions:read:s-u", 0, 0),
        ("subscriptions:read", 0, 1),
    ):
        seen = await get(client, "/overview/history", token(scopes))
        assert (sum(seen["published"]), sum(seen["delivered"])) == (published, delivered), scopes
        rates = (await get(client, "/overview", token(scopes)))["rates"]
        assert (rates["published"], rates["delivered"]) == (published / 60, delivered / 60), scopes
    problem(await client.get("/topics/nowhere/history", headers=admin), 404)
    problem(await client.get("/subscriptions/nowhere/history", headers=admin), 404)
    problem(await client.get("/overview/history?interval_seconds=7", headers=admin), 422)
    assert (await get(client, "/topics/t/history?from=9&to=3", admin))["times"] == []
