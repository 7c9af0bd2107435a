"""The console in a real browser."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from fastpubsub.api import console
from tests import harness
from tests.browser.pilot import AXE, Pilot
from tests.chromium import Browser
from tests.conftest import Run
from tests.lasting import Last, Lasting

KEY = "k" * 32
FIRST_PAGE_BYTES = 200_000
EVIL = "<img src=x onerror=window.pwned=1>"
EVIL_PULL = {"consumer_id": EVIL, "wait_seconds": "20"}
ATTACKS = {
    "html": f"</script><script>window.pwned=1</script>{EVIL}",
    EVIL: "a name may be one, too",
    "address": "javascript:window.pwned=1",
    "style": "</style><style>body{display:none}",
    "nested": [
        {"template": "${window.pwned=1}{{constructor.constructor('window.pwned=1')()}}"},
        "\u202egnp.exe\u0000"[:-1],
    ],
    "__proto__": {"polluted": True},
    "dangerouslySetInnerHTML": {"__html": EVIL},
    "huge": "A" * 50_000,
    "exact": 12345678901234567890.5,
}
PAGES = {
    "#/": "Overview",
    "#/topics": "orders",
    "#/topics/orders": "Messages",
    "#/topics/orders?tab=live": "Live",
    "#/topics/orders?tab=publish": "Payload",
    "#/topics/orders?tab=subscriptions": "billing",
    "#/topics/orders?tab=schedules": "This topic has no schedules",
    "#/topics/orders?tab=refused": "No message is refused",
    "#/topics/orders?tab=settings": "JSON Schema",
    "#/subscriptions": "billing",
    "#/subscriptions/billing": "Not done",
    "#/subscriptions/billing?tab=messages&state=dead": "Dead",
    "#/subscriptions/billing?tab=consumers": "Consumers",
    "#/subscriptions/tax-report?tab=filter": "Country",
    "#/subscriptions/billing?tab=seek": "What comes next",
    "#/subscriptions/billing?tab=push": "It is not pushed",
    "#/subscriptions/billing?tab=settings": "Ack deadline",
    "#/dead-letters/billing": "card declined",
    "#/clients": "Clients",
    "#/audit": "Audit",
    "#/nowhere": "Nothing is here",
}
SHOWN = """
    const typed = [...document.querySelectorAll('textarea, input')].map((one) => one.value);
    return [document.body.innerText, ...typed].some((one) => one.includes('onerror=window.pwned=1'));
"""
MADE = """
    const made = 'img, iframe, object, embed, form[action], #app script, #app style';
    return document.querySelectorAll(made).length;
"""
FOREIGN_LINKS = """
    const links = [...document.querySelectorAll('a')].map((one) => one.getAttribute('href'));
    return links.filter((one) => !/^#|^docs$/.test(one));
"""
AHEAD = "return Number(document.querySelector('.figure.ahead strong').textContent.replaceAll(',', ''))"
SCHEMA = {"type": "object", "required": ["order"], "properties": {"order": {"type": "integer"}}}


@pytest.fixture
def shop(lasting_server: Last) -> Lasting:
    """Of `billing` two messages are dead, `tax-report` gets nothing because of its filter."""
    started = lasting_server()
    fill_shop(httpx.Client(base_url=started.base_url))
    return started


def fill_shop(http: httpx.Client) -> list[str]:
    with http:
        http.post("/topics", json={"id": "orders", "schema": SCHEMA}).raise_for_status()
        http.post("/subscriptions", json={"id": "billing", "topic_id": "orders"}).raise_for_status()
        tax = {"id": "tax-report", "topic_id": "orders", "filter": {"Country": ["BR"]}}
        http.post("/subscriptions", json=tax).raise_for_status()
        orders = [{"order": number, "country": "BR"} for number in range(1, 6)]
        ids: list[str] = http.post(
            "/topics/orders/messages", json=orders, headers={"Prefer": "return=representation"}
        ).json()["ids"]
        http.get("/subscriptions/billing/messages", params={"consumer_id": "worker-1", "batch_size": 3})
        rejected = {"ids": ids[:2], "reason": "card declined"}
        http.post("/subscriptions/billing/rejects", json=rejected).raise_for_status()
        return ids


@pytest.fixture
def pilot(browser: Browser, shop: Lasting) -> Iterator[Pilot]:
    pilot = Pilot(browser, shop.base_url)
    yield pilot
    assert pilot.complaints() == []
    assert browser.run("return window.pwned") is None
    pilot.cdp("Emulation.clearDeviceMetricsOverride")
    pilot.cdp("Emulation.setEmulatedMedia", features=[])


def message_ids(pilot: Pilot, topic_id: str = "orders") -> list[str]:
    found = httpx.get(f"{pilot.base_url}/topics/{topic_id}/messages").json()["data"]
    return [one["id"] for one in found]


def test_every_page_is_there_for_everyone(pilot: Pilot) -> None:
    """What axe looks for, in light and in dark; and 360 px are enough."""
    pages = PAGES | {f"#/messages/{message_ids(pilot)[0]}": "billing"}
    found: dict[str, object] = {}
    pilot.open()
    for place, text in pages.items():
        pilot.look(1280)
        pilot.go(place)
        pilot.sees(text)
        found[place] = pilot.faults()
        pilot.look(360, "dark")
        found[f"{place} in dark"] = pilot.faults()
        root = "document.documentElement"
        found[f"{place} is wider than 360 px"] = pilot.browser.run(f"return {root}.scrollWidth > 360")
    assert {place: faults for place, faults in found.items() if faults} == {}


def test_the_first_page_is_small_and_comes_from_here(pilot: Pilot) -> None:
    pilot.browser.loaded()
    pilot.open()
    loaded = pilot.browser.loaded()
    assert [url for url in loaded if not url.startswith((f"{pilot.base_url}/", "data:", "chrome:"))] == []
    size = "return performance.getEntries().reduce((sum, one) => sum + (one.encodedBodySize ?? 0), 0)"
    assert 0 < pilot.browser.run(size) < FIRST_PAGE_BYTES


def test_every_module_loads(pilot: Pilot) -> None:
    pilot.open()
    names = [
        f"./console/{console._release()}/{name}"
        for name in console.assets()
        if name.endswith(".js") and "vendor" not in name
    ]
    script = """
        const done = arguments[arguments.length - 1];
        Promise.all(arguments[0].map((one) => import(new URL(one, document.baseURI)).then(() => null, String)))
            .then((all) => done(all.filter(Boolean)));
    """
    assert pilot.browser.post("/execute/async", {"script": script, "args": [names]}) == []


def test_a_payload_of_attacks_stays_text(pilot: Pilot) -> None:
    http = httpx.Client(base_url=pilot.base_url)
    with http:
        http.post("/topics", json={"id": "evil"})
        http.post("/subscriptions", json={"id": "victim", "topic_id": "evil"})
        body = {"messages": [{"payload": ATTACKS, "attributes": {EVIL: EVIL}}]}
        text = json.dumps(body).replace("1.2345678901234567e+19", "12345678901234567890.5")
        http.post("/clients", json={"name": EVIL, "scopes": "topics:read"}).raise_for_status()
        (client,) = http.get("/clients").json()["data"]
        (id_,) = http.post(
            "/topics/evil/messages",
            content=text,
            headers={"Prefer": "return=representation", "Content-Type": "application/json"},
        ).json()["ids"]
        http.get("/subscriptions/victim/messages", params={"consumer_id": EVIL})
        pilot.open("#/subscriptions/victim?tab=messages&state=leased")
        pilot.sees(EVIL)
        http.post("/subscriptions/victim/rejects", json={"ids": [id_], "reason": EVIL}).raise_for_status()
    for place in (
        "#/topics/evil",
        "#/topics/evil?tab=live",
        f"#/messages/{id_}",
        "#/dead-letters/victim",
        f"#/topics/evil?tab=publish&template={id_}",
        "#/clients",
        f"#/clients/{client['id']}",
        "#/audit",
    ):
        pilot.go(place)
        pilot.browser.wait_for(SHOWN)
        assert pilot.browser.run(MADE) == 0, place
        assert pilot.browser.run(FOREIGN_LINKS) == [], place
        assert pilot.browser.run("return [window.pwned, ({}).polluted]") == [None, None]
    pilot.go(f"#/messages/{id_}")
    pilot.sees("12345678901234567890.5")
    pilot.press("Raw")
    pilot.sees('"exact": 12345678901234567890.5')


def test_the_keyboard_is_enough(pilot: Pilot) -> None:
    first, *_ = message_ids(pilot)
    pilot.open("#/topics")
    pilot.type("Tab")
    assert pilot.browser.run("return document.activeElement.textContent") == "Skip to the page"
    pilot.type("Enter")
    assert pilot.browser.run("return document.activeElement.id") == "main"
    pilot.type("/")
    pilot.type(first, "Enter")
    pilot.sees("tax-report", "filtered")
    pilot.go("#/topics/orders")
    for _ in range(40):
        pilot.type("Tab")
        if pilot.browser.run("return document.activeElement.textContent") == "Delete":
            break
    pilot.type("Enter")
    pilot.sees("Type orders to confirm")
    assert pilot.browser.run("return document.querySelector('dialog .danger').disabled")
    pilot.type("Escape")
    assert pilot.browser.wait_for("return !document.querySelector('dialog')")
    assert httpx.get(f"{pilot.base_url}/topics/orders").status_code == 200


FOCUSED = "return document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"


def tab_to(pilot: Pilot, text: str) -> None:
    for _ in range(60):
        pilot.type("Tab")
        if pilot.browser.run(FOCUSED) == text:
            return
    raise AssertionError(f"no Tab leads to {text}")


@pytest.mark.long
def test_a_topic_is_made_and_published_to_with_keys_alone(pilot: Pilot) -> None:
    pilot.open("#/topics")
    tab_to(pilot, "New topic")
    pilot.type("Enter")
    pilot.browser.wait_for("return document.activeElement.matches('dialog input')")
    pilot.type("Escape")
    pilot.browser.wait_for("return !document.querySelector('dialog')")
    assert pilot.browser.run(FOCUSED) == "New topic"
    pilot.type("Enter")
    pilot.browser.wait_for("return document.activeElement.matches('dialog input')")
    pilot.type("by-hand", "Enter")
    pilot.sees("by-hand", "One JSON object")
    for _ in range(60):
        pilot.type("Tab")
        if pilot.browser.run("return document.activeElement.name") == "payload":
            break
    pilot.browser.run("document.activeElement.select()")
    pilot.type('{"n": 1}')
    tab_to(pilot, "Publish")
    pilot.type("Enter")
    pilot.sees("Published:")
    (message,) = httpx.get(f"{pilot.base_url}/topics/by-hand/messages").json()["data"]
    assert message["payload"] == {"n": 1}


def test_topics_are_made_published_to_and_deleted(pilot: Pilot) -> None:
    pilot.open("#/topics")
    pilot.press("New topic")
    pilot.fill("Id", "letters")
    pilot.fill("JSON Schema", json.dumps({"type": "object", "required": ["to"]}))
    pilot.press("Create topic")
    pilot.sees('The payload lacks "to"')
    pilot.fill("Payload", '{"to": "Ada", "n": 1.10}')
    pilot.press("Publish", "button")
    pilot.sees("Published:")
    (message,) = httpx.get(f"{pilot.base_url}/topics/letters/messages").json()["data"]
    assert httpx.get(f"{pilot.base_url}/messages/{message['id']}").text.count('{"to": "Ada", "n": 1.10}') == 1
    pilot.press("Subscriptions", "main nav a")
    pilot.press("New subscription of letters")
    pilot.fill("Id", "mailing")
    pilot.press("Create subscription")
    pilot.sees("Not done")
    pilot.press("Delete")
    pilot.fill("Type mailing to confirm", "mailing")
    pilot.press("Delete", "dialog button")
    pilot.sees("Deleted mailing.")
    assert httpx.get(f"{pilot.base_url}/subscriptions/mailing").status_code == 404


def test_the_tail_is_live(pilot: Pilot) -> None:
    pilot.open("#/topics/orders?tab=live")
    pilot.sees('"order":5')
    httpx.post(f"{pilot.base_url}/topics/orders/messages", json=[{"order": 77}])
    pilot.sees('"order":77')
    assert pilot.text().index('"order":77') < pilot.text().index('"order":5')


def test_the_story(pilot: Pilot) -> None:
    """A backlog grows, a message does not come because of a filter, and dead letters go back."""
    sees_a_growing_backlog(pilot)
    finds_why_a_message_does_not_come(pilot)
    mends_the_filter(pilot)
    redrives_at_a_rate(pilot)


def sees_a_growing_backlog(pilot: Pilot) -> None:
    pilot.open()
    pilot.sees("Ahead")
    before = pilot.browser.run(AHEAD)
    publish(pilot, *({"order": number, "country": "BR"} for number in range(100, 150)))
    pilot.browser.wait_for(f"return (() => {{ {AHEAD} }})() >= {before} + 50")
    pilot.press("Ahead", ".figure .label")
    pilot.sees("Subscriptions", "billing")
    pilot.browser.wait_for("return document.querySelector('tbody').innerText.includes('52')")


def finds_why_a_message_does_not_come(pilot: Pilot) -> None:
    pilot.press("tax-report")
    pilot.sees("Nothing waits to be delivered")
    pilot.go(f"#/messages/{message_ids(pilot)[-1]}")
    pilot.sees("filtered", "The message has country")
    pilot.press("tax-report")


def mends_the_filter(pilot: Pilot) -> None:
    test = "Test with the last 100 messages"
    pilot.press(test)
    pilot.sees("Kept out\n55", "Some that are kept out, and why", "The message has country")
    assert pilot.faults() == []
    pilot.fill("Filter", '{"country": ["BR"]}')
    pilot.press(test)
    pilot.sees("Pass\n55", "Kept out\n0", "Some that pass")
    pilot.press("Save filter")
    pilot.sees("Saved.")
    pilot.press("Messages")
    pilot.sees('"order":5')
    pulled = httpx.get(f"{pilot.base_url}/subscriptions/tax-report/messages", params={"consumer_id": "clerk"})
    assert [one["payload"]["order"] for one in pulled.json()["data"]][:5] == [1, 2, 3, 4, 5]
    publish(pilot, {"order": 6, "country": "BR"})
    pilot.go(f"#/messages/{message_ids(pilot)[-1]}")
    states = "[...document.querySelectorAll('.state')]"
    pilot.browser.wait_for(f"return {states}.every((one) => one.textContent === 'ahead')")


def redrives_at_a_rate(pilot: Pilot) -> None:
    """So many that a slow browser sees it run."""
    path = f"{pilot.base_url}/subscriptions/billing"
    pulled = httpx.get(f"{path}/messages", params={"consumer_id": "clerk", "batch_size": 16}).json()["data"]
    rejected = {"ids": [one["ack_id"] for one in pulled], "reason": "card declined"}
    httpx.post(f"{path}/rejects", json=rejected).raise_for_status()
    pilot.go("#/dead-letters/billing")
    pilot.press("card declined")
    pilot.fill("Messages per second", "2")
    pilot.press("Redrive this reason")
    pilot.press("Redrive this reason", "dialog button")
    pilot.sees("of 18 messages · running")
    assert pilot.browser.run("return document.querySelector('progress').position") < 1
    pilot.sees("18 of 18 messages · done", "There are no dead letters")
    assert pilot.browser.run("return document.querySelector('progress').position") == 1
    assert pilot.faults() == []
    assert httpx.get(f"{pilot.base_url}/subscriptions/billing/metrics").json()["dlq"] == 0


def publish(pilot: Pilot, *payloads: dict[str, object]) -> None:
    httpx.post(f"{pilot.base_url}/topics/orders/messages", json=payloads).raise_for_status()


def test_schedules_of_a_topic(pilot: Pilot) -> None:
    path = f"{pilot.base_url}/topics/orders/schedules"
    nightly = {"id": "nightly", "cron": "30 2 * * *", "time_zone": "America/Sao_Paulo", "payload": {"order": 7}}
    for body in (nightly, {"id": "tick", "interval_seconds": 5400, "payload": {"order": 8}}):
        httpx.post(path, json=body).raise_for_status()
    pilot.open("#/topics/orders?tab=schedules")
    pilot.sees("nightly", "30 2 * * *", "America/Sao_Paulo", "every 5,400 seconds")
    pilot.press("nightly")
    pilot.sees("The next 5 times:", '"order": 7')
    assert pilot.faults() == []
    pilot.press("Fire now")
    pilot.sees("Published the message of nightly.")
    pilot.press("Pause")
    pilot.sees("paused", "It publishes nothing until it is resumed.")
    pilot.press("Resume")
    pilot.sees("The next 5 times:")
    pilot.press("Delete", "td button")
    pilot.press("Delete", "dialog button")
    pilot.browser.wait_for("return !document.body.innerText.includes('America/Sao_Paulo')")
    (left,) = httpx.get(path).json()["data"]
    assert left["id"] == "tick"


def refused(shop: Lasting) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{shop.base_url}/topics/orders/refused").json()["data"]
    return found


def test_refused_messages_of_a_topic(pilot: Pilot, shop: Lasting) -> None:
    with psycopg.connect(harness.libpq(shop.database_url), autocommit=True) as connection:
        for payload in ({"order": "seven", "html": EVIL}, {"order": "eight"}, {"total": 1}):
            connection.execute("select fastpubsub.publish('orders', %s)", [json.dumps(payload)])
    pilot.open("#/topics/orders?tab=refused")
    pilot.browser.wait_for("return document.querySelectorAll('tbody tr').length === 3")
    pilot.sees("refused-", "seven", "eight", *(one["reason"] for one in refused(shop)), EVIL)
    pilot.browser.wait_for("return document.querySelector('a.number')?.textContent === '3'")
    assert pilot.faults() == []
    schema = SCHEMA | {"properties": {}}
    httpx.patch(f"{pilot.base_url}/topics/orders", json={"schema": schema}).raise_for_status()
    pilot.press("Select all on this page")
    pilot.sees("3 selected")
    pilot.press("Publish selected")
    pilot.sees("Published 2 of 3 messages. The others do not match the schema yet.")
    pilot.browser.wait_for("return document.querySelectorAll('tbody tr').length === 1")
    (left,) = refused(shop)
    pilot.press(f"Select {left['id']}")
    pilot.press("Purge selected")
    pilot.fill("Type orders to confirm", "orders")
    pilot.press("Purge selected", "dialog button.danger")
    pilot.sees("No message is refused")
    assert refused(shop) == []
    pilot.go("#/topics/orders")
    pilot.sees("seven", "eight")


def test_by_what_a_subscription_is_shared(pilot: Pilot) -> None:
    fair = {"id": "fair", "topic_id": "orders", "fair_by": "attributes.tenant"}
    httpx.post(f"{pilot.base_url}/subscriptions", json=fair).raise_for_status()
    pilot.open("#/subscriptions/fair?tab=settings")
    pilot.sees("Shared by", "Keys of which messages wait get equally many")
    shown = "const one = document.querySelector('[name=fair_by]'); return [one.value, one.readOnly]"
    assert pilot.browser.run(shown) == ["attributes.tenant", True]
    assert pilot.faults() == []
    pilot.fill("Attempts", "9")
    pilot.fill("Jitter of the backoff", "0.5")
    pilot.press("Save settings")
    pilot.sees("Saved.")
    assert httpx.get(f"{pilot.base_url}/subscriptions/fair").json()["backoff_jitter"] == 0.5
    pilot.go("#/subscriptions/billing?tab=settings")
    pilot.sees("Ack deadline")
    assert pilot.browser.run("return document.querySelector('[name=fair_by]')") is None


SHIFTS = """
    window.shifts = [];
    new PerformanceObserver((list) => {
        const texts = ({sources}) => sources.map(({node}) => node?.outerHTML ?? node?.textContent);
        for (const one of list.getEntries()) window.shifts.push([one.value, texts(one).join(' | ').slice(0, 300)]);
    }).observe({type: 'layout-shift'});
"""
ASKED = "return performance.getEntriesByType('resource').length"
LIVE = ("#/", "#/topics/orders", "#/topics/orders?tab=live", "#/subscriptions/billing")


@pytest.mark.long
@pytest.mark.parametrize(("width", "places"), [(1280, LIVE), (360, LIVE[::3])])
def test_nothing_moves_while_live(pilot: Pilot, width: int, places: Sequence[str]) -> None:
    pilot.look(width)
    publish(pilot, *({"order": number, "country": "BR"} for number in range(100, 150)))
    for number, place in enumerate(places):
        pilot.open(place)
        pilot.sees('"order"' if place != "#/" else "Ahead")
        pilot.browser.wait_for("return document.readyState === 'complete' && !document.querySelector('.plot-space')")
        pilot.browser.run(SHIFTS)
        asked = pilot.browser.run(ASKED)
        publish(pilot, *({"order": 200 + number, "more": "x" * 300} for _ in range(3)))
        pilot.browser.wait_for(f"return (() => {{ {ASKED} }})() > {asked} + 1")
        assert [one for one in pilot.browser.run("return window.shifts") if one[0] > 0.001] == [], place


def test_rows_stand_still_under_the_mouse(pilot: Pilot) -> None:
    pilot.open("#/topics/orders?tab=live")
    pilot.sees('"order":5', "5 messages")
    move(pilot, "td.payload")
    publish(pilot, {"order": 78})
    pilot.sees("6 messages")
    assert '"order":78' not in pilot.text()
    move(pilot, "h1")
    pilot.sees('"order":78')
    tab_to(pilot, f"…{message_ids(pilot)[-1][-12:]}")
    publish(pilot, {"order": 79})
    pilot.sees("7 messages")
    assert '"order":79' not in pilot.text()
    pilot.browser.run("document.activeElement.blur()")
    pilot.sees('"order":79')


def move(pilot: Pilot, place: str) -> None:
    box = pilot.browser.run(
        f"const {{x, y}} = document.querySelector('{place}').getBoundingClientRect(); return [x, y]"
    )
    pilot.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + 5, y=box[1] + 5)


def test_what_is_wrong_with_a_form_is_told_and_not_copied(pilot: Pilot) -> None:
    pilot.open("#/subscriptions/billing?tab=filter")
    pilot.fill("Filter", "{")
    pilot.press("Copy the test as curl")
    pilot.sees("The filter is not JSON")
    pilot.fill("Filter", '{"$attributes": {"source": ["shop"]}}')
    pilot.press("Test with the last 100 messages")
    pilot.sees('must have {"source":["shop"]}')
    pilot.go("#/subscriptions/billing?tab=seek")
    pilot.press("A message", "label")
    pilot.press("Copy the preview as curl")
    pilot.sees("Give the id of the message.")
    pilot.press("The oldest message that is kept", "label")
    pilot.press("Preview")
    pilot.sees("Ahead then")
    assert pilot.faults() == []


@pytest.mark.long
def test_dialogs_are_there_for_everyone_and_ask_by_name(pilot: Pilot) -> None:
    faults: list[str] = []
    for place, label in (
        ("#/topics", "New topic"),
        ("#/subscriptions", "New subscription"),
        ("#/clients", "New client"),
    ):
        pilot.open(place)
        pilot.press(label)
        pilot.browser.wait_for("return document.querySelector('dialog[open]')")
        faults += pilot.faults()
    pilot.open("#/dead-letters/billing")
    pilot.press("Select all on this page")
    for label in ("Purge selected", "Purge all"):
        pilot.press(label)
        pilot.sees("Type billing to confirm")
        faults += pilot.faults()
        assert pilot.browser.run("return document.querySelector('dialog .danger').disabled")
        pilot.press("Cancel")
    assert faults == []
    pilot.press("Purge selected")
    pilot.fill("Type billing to confirm", "billing")
    pilot.press("Purge selected", "dialog button")
    pilot.sees("There are no dead letters")


def test_a_schema_that_leads_to_itself(pilot: Pilot) -> None:
    """Such a schema is never done here; what it says of a payload is the server's to say."""
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    pilot.open("#/topics/orders?tab=publish")
    pilot.fill("Payload", "{}")
    pilot.sees('lacks "order"')
    script = """
        const [name, schema, done] = arguments;
        import(new URL(name, document.baseURI)).then(({mismatches}) => done(mismatches(schema, {}))).catch(done);
    """
    name = f"./console/{console._release()}/lib/schema.js"
    assert pilot.browser.post("/execute/async", {"script": script, "args": [name, schema]}) == []


def test_times_in_sentences_are_those_of_the_browser(pilot: Pilot) -> None:
    pilot.cdp("Emulation.setTimezoneOverride", timezoneId="Asia/Kathmandu")
    pilot.open(f"#/messages/{message_ids(pilot)[0]}")
    pilot.sees("it became a dead letter at")
    shown, titles = pilot.browser.run("""
        const times = [...document.querySelectorAll('tbody time')];
        return [document.querySelector('tbody').innerText, times.map((one) => one.title)];
    """)
    assert not re.search(r"\dT\d\d:", shown)
    assert all(" UTC" in title for title in titles)
    pilot.cdp("Emulation.setTimezoneOverride", timezoneId="")


def test_a_dead_letter_is_edited_and_published(pilot: Pilot, shop: Lasting) -> None:
    """Also when the topic no longer has its message."""
    url = f"{pilot.base_url}/subscriptions"
    held = httpx.get(f"{url}/billing/messages", params={"consumer_id": "worker-1", "batch_size": 9}).json()["data"]
    held += httpx.get(f"{url}/billing/messages/browse", params={"state": "leased"}).json()["data"]
    httpx.post(f"{url}/billing/acks", json=[one["id"] for one in held]).raise_for_status()
    httpx.delete(f"{url}/tax-report").raise_for_status()
    first = message_ids(pilot)[0]
    with psycopg.connect(harness.libpq(shop.database_url), autocommit=True) as connection:
        connection.execute("select fastpubsub.trim_messages(topic_key, 0, p_wait => true) from fastpubsub.topics")
    assert first not in message_ids(pilot)
    pilot.open("#/dead-letters")
    pilot.press("billing")
    pilot.press(f"…{first[-12:]}")
    pilot.press("Edit and publish")
    pilot.browser.wait_for("return document.querySelector('[name=payload]')?.value.includes('order')")
    pilot.fill("Payload", '{"order": 1, "country": "US"}')
    pilot.press("Publish", "button")
    pilot.sees("Published:")


def test_who_consumes_and_why_a_message_waits(pilot: Pilot) -> None:
    """Who pulls is named by whoever pulls."""
    api = httpx.Client(base_url=f"{pilot.base_url}/subscriptions/billing")
    tax_report = f"{pilot.base_url}/subscriptions/tax-report"
    is_seen = threading.Event()

    def pull() -> None:
        """Again and again: a slow browser takes longer than one of them waits."""
        while not is_seen.is_set():
            httpx.get(f"{tax_report}/messages", params=EVIL_PULL).raise_for_status()

    with api, ThreadPoolExecutor() as pool:
        pulling = pool.submit(pull)
        try:
            pilot.open("#/subscriptions/tax-report?tab=consumers")
            pilot.sees(EVIL, "1 pull")
        finally:
            is_seen.set()
        api.delete(f"{tax_report}/waits", params={"consumer_id": EVIL}).raise_for_status()
        pulling.result()
        pilot.sees("No consumer is here")
        pilot.go("#/subscriptions/billing?tab=consumers")
        pilot.sees("worker-1", "ago")
        held = api.get("/messages/browse", params={"state": "leased"}).json()["data"][0]["id"]
        api.post("/nacks?delay_seconds=600", json=[held]).raise_for_status()
        pilot.go(f"#/messages/{held}")
        pilot.sees("a consumer nacked delivery 1")
        pilot.go("#/subscriptions/billing?tab=messages&state=waiting")
        pilot.sees("nacked")
        api.post("/pause").raise_for_status()
        pilot.go("#/")
        pilot.sees("Paused", "it is paused: consumers get nothing until it is resumed")


def test_four_counts_add_up(pilot: Pilot) -> None:
    url = f"{pilot.base_url}/subscriptions/billing"
    (held,) = httpx.get(f"{url}/messages/browse", params={"state": "leased"}).json()["data"]
    httpx.post(f"{url}/nacks", params={"delay_seconds": 600}, json=[held["id"]]).raise_for_status()
    httpx.get(f"{url}/messages", params={"consumer_id": "worker-2", "batch_size": 1})
    pilot.open("#/subscriptions/billing")
    pilot.sees("Not done")
    shown = pilot.browser.run("return [...document.querySelectorAll('.meter strong')].map((one) => one.textContent)")
    assert shown == ["1", "1", "1", "2", "= 5"]


def make_client(run: Run, name: str, scopes: str, url: str) -> dict[str, str]:
    made = run("create_client", name, scopes, auth_enabled=True, auth_secret_key=KEY, database_url=url)
    return dict(re.findall(r"^(client_\w+)=(.*)$", made.stdout, re.MULTILINE))


def log_in(pilot: Pilot, credentials: dict[str, str]) -> None:
    pilot.sees("Client secret")
    pilot.fill("Client id", credentials["client_id"])
    pilot.fill("Client secret", credentials["client_secret"])
    pilot.press("Log in", "button")


def headers_of(base_url: str, credentials: dict[str, str]) -> dict[str, Any]:
    token = httpx.post(f"{base_url}/oauth/token", json=credentials).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}


def test_what_the_scopes_do_not_allow_is_not_shown(browser: Browser, lasting_server: Last, run: Run) -> None:
    started = lasting_server(auth_enabled=True, auth_secret_key=KEY)
    administrator = make_client(run, "admin", "*", started.database_url)
    fill_shop(httpx.Client(base_url=started.base_url, headers=headers_of(started.base_url, administrator)))
    narrow = make_client(run, "narrow", "topics:read:orders subscriptions:read:billing", started.database_url)
    pilot = Pilot(browser, started.base_url)
    pilot.open("#/topics/orders")
    assert pilot.faults() == []
    log_in(pilot, narrow | {"client_secret": "wrong"})
    pilot.sees("wrong")
    log_in(pilot, narrow)
    pilot.sees("orders", "Messages", "not shown")
    assert not any(pilot.has(label) for label in ("Delete", "Publish", "Live", "Clients", "Audit", "Save settings"))
    pilot.go("#/subscriptions")
    pilot.sees("billing")
    assert "tax-report" not in pilot.text()
    pilot.go("#/subscriptions/billing")
    pilot.sees("Not done")
    assert not any(pilot.has(label) for label in ("Delete", "Pause", "Seek"))
    assert not browser.run("return sessionStorage.length + document.cookie.length")
    pilot.press("Log out")
    pilot.sees("Client secret")
    log_in(pilot, administrator)
    pilot.sees("Not done", "Delete")
    pilot.go("#/clients")
    pilot.press("narrow")
    pilot.press("Rotate secret")
    pilot.press("Rotate secret", "dialog button")
    pilot.sees("This is the only time that the secret is shown.", "fps_")
    assert [one for one in pilot.complaints() if "favicon" not in one] == []


def test_a_reload_asks_again_unless_the_tab_remembers(browser: Browser, lasting_server: Last, run: Run) -> None:
    started = lasting_server(auth_enabled=True, auth_secret_key=KEY)
    credentials = make_client(run, "admin", "*", started.database_url)
    pilot = Pilot(browser, started.base_url)
    pilot.open("#/topics")
    log_in(pilot, credentials)
    pilot.sees("There are no topics")
    browser.post("/refresh", {})
    pilot.sees("Client secret")
    browser.run("document.querySelector('[name=kept]').click()")
    log_in(pilot, credentials)
    pilot.sees("There are no topics")
    browser.post("/refresh", {})
    pilot.sees("There are no topics")
    assert credentials["client_secret"] not in browser.run("return JSON.stringify(sessionStorage)")
    browser.run("sessionStorage.clear()")


def test_the_vendored_file_is_the_original() -> None:
    (checksum,) = re.findall(r"`([0-9a-f]{64})`", (AXE.parent / "README.md").read_text())
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() == checksum
