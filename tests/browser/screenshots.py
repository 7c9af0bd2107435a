"""`python -m tests.browser.screenshots [PAGE …]`: pictures of the console for docs/, light and dark."""

import asyncio
import base64
import itertools
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests import harness, warm
from tests.browser.pilot import Pilot
from tests.browser.shop import MINUTES, STEP, Shop
from tests.chromium import chromium
from tests.database.store import Store, connect

PICTURES = Path(__file__).parents[2] / "docs" / "console"
SCHEMES = ("light", "dark")
WIDTH = 1200
LOWEST, MARGIN = 420, 24
THEN = datetime(2026, 6, 17, 14, 30, tzinfo=UTC)
"""When the pictures say that it is."""
STEADY = Path(__file__).with_name("steady.js")
KEY = "k" * 32
CLIENTS = {
    "shop-api": "topics:publish:orders topics:publish:payments topics:publish:shipments",
    "billing-worker": "subscriptions:consume:billing topics:publish:payments",
    "on-call": "topics:read topics:consume subscriptions:read messages:read clients:read audit:read",
}
ENCODE = """
    const [source, done] = arguments;
    const image = new Image();
    image.onload = () => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [image.width, image.height];
        canvas.getContext('2d').drawImage(image, 0, 0);
        done(canvas.toDataURL('image/webp', 0.8).split(',')[1]);
    };
    image.src = 'data:image/png;base64,' + source;
"""
CONTENT = (
    "return Math.max(...[...document.querySelector('main').children].map((one) => one.getBoundingClientRect().bottom))"
)


@dataclass(frozen=True)
class Picture:
    """Of one page: where it is, what stands on it when it is there, and what is done before it is taken."""

    place: str
    text: str
    prepare: Callable[[Pilot], None] = lambda _: None
    height: int = 900
    """At most, in pixels."""


def press_test(pilot: Pilot) -> None:
    pilot.press("Test with the last 100 messages")
    pilot.sees("Some that are kept out")


def preview(pilot: Pilot) -> None:
    pilot.press("Preview")
    pilot.sees("Ahead then")


def redrive(pilot: Pilot) -> None:
    pilot.press("unknown currency")
    pilot.fill("Messages per second", "5")
    pilot.press("Redrive this reason")
    pilot.press("Redrive this reason", "dialog button")
    pilot.sees("running")
    pilot.press("show all")
    pilot.browser.wait_for("return document.querySelector('progress').position > 0.2")


def type_a_payload(pilot: Pilot) -> None:
    pilot.press("Use the last message")
    pilot.browser.wait_for("return document.querySelector('[name=payload]').value.includes('lines')")
    payload = str(pilot.browser.run("return document.querySelector('[name=payload]').value"))
    pilot.fill("Payload", re.sub(r'"total": [\d.]+', '"total": -1', payload))
    pilot.sees("must be at least 0")


PAGES: dict[str, Picture] = {
    "overview": Picture("#/", "Dead letters"),
    "topics": Picture("#/topics", "shipments"),
    "topic": Picture("#/topics/orders", "Looked at"),
    "topic-live": Picture("#/topics/orders?tab=live", "20 messages"),
    "topic-publish": Picture("#/topics/orders?tab=publish", "Attributes", type_a_payload, 1040),
    "subscriptions": Picture("#/subscriptions", "warehouse"),
    "subscription": Picture("#/subscriptions/billing?tab=messages&state=leased", "billing-1"),
    "subscription-consumers": Picture("#/subscriptions/billing?tab=consumers", "billing-2"),
    "subscription-filter": Picture("#/subscriptions/tax-report?tab=filter", "Save filter", press_test, 1180),
    "subscription-seek": Picture("#/subscriptions/newsletter?tab=seek", "What comes next", preview, 1000),
    "subscription-push": Picture("#/subscriptions/newsletter?tab=push", "the endpoint answered 503", height=1400),
    "message": Picture("#/messages/{message}", "tax-report"),
    "dead-letters": Picture("#/dead-letters", "fraud-check"),
    "dead-letters-of": Picture("#/dead-letters/billing", "card declined", redrive),
    "clients": Picture("#/clients", "on-call"),
    "client": Picture("#/clients/{client}", "Rotate secret", height=1000),
    "audit": Picture("#/audit", "billing"),
}


def main(names: Sequence[str]) -> int:
    if unknown := set(names) - {*PAGES, "log-in"}:
        print(f"there is no page {', '.join(sorted(unknown))}; there are: log-in {' '.join(PAGES)}", file=sys.stderr)
        return 2
    PICTURES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_shop(Path(folder)) as shop,
        chromium(Path(folder) / "profile") as browser,
    ):
        for name, scheme, picture in pictures(Pilot(browser, shop.base_url), shop, names or ["log-in", *PAGES]):
            file = PICTURES / f"{name}-{scheme}.webp"
            file.write_bytes(picture)
            print(f"{file.relative_to(PICTURES.parents[1])}  {len(picture) / 1000:.0f} kB", flush=True)
    return 0


@dataclass
class Opened:
    base_url: str
    store: Store
    secret: str
    clients: dict[str, str]
    message: str

    end: datetime
    """Of what was played."""

    def steady(self) -> str:
        """The script for the next page. Lets the history end now, for rates are those of the last minute."""
        last = self.store.value("select max(at) from fastpubsub.history")
        late = int(time.time()) // STEP * STEP - STEP - last
        self.store.execute("update fastpubsub.history set at = -at - %s", late)  # in between no two are equal
        self.store.execute("update fastpubsub.history set at = -at")
        moved = round((self.end - THEN).total_seconds() * 1000)
        history_moved = round((last + late + STEP - THEN.timestamp()) * 1000)
        return f"const MOVED = {moved}, HISTORY_MOVED = {history_moved};\n{STEADY.read_text()}"


@contextmanager
def open_shop(folder: Path, minutes: int = MINUTES) -> Iterator[Opened]:
    """The shop, and a server of it with authentication."""
    postgres = harness.Postgres()
    try:
        url = harness.clone(postgres.start(), harness.unique_name(postgres.start()))
        store = connect(harness.libpq(url), autocommit=True)
        end = datetime.fromtimestamp(int(time.time()) // STEP * STEP, UTC)
        asyncio.run(Shop(store, end, minutes).play())
        settings = {"database_url": url, "auth_enabled": True, "auth_secret_key": KEY}
        made = warm.run(["create_client", "admin", "*"], cwd=folder, env=harness.environment(settings)).stdout
        credentials = dict(re.findall(r"^(client_\w+)=(.*)$", made, re.MULTILINE))
        server = harness.start_server(["server"], folder, settings)
        try:
            server.wait_until_ready()
            message = administrate(server.base_url, credentials)
            push(store, end)
            yield Opened(server.base_url, store, credentials["client_secret"], rename(store, end), message, end)
        finally:
            server.stop()
            store.connection.close()
    finally:
        postgres.stop()


def administrate(base_url: str, credentials: dict[str, str]) -> str:
    """Does what the audit tells. Returns the id of a message that died, and that a filter keeps out elsewhere."""
    token = httpx.post(f"{base_url}/oauth/token", json=credentials).json()["access_token"]
    with httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {token}"}) as http:
        numbers = itertools.count(0x3C5F1D02, 0x1E37_79B1)

        def change(method: str, path: str, body: object = None) -> Any:
            headers = {"X-Request-ID": f"{next(numbers):012x}"}
            return http.request(method, path, json=body, headers=headers).raise_for_status().json()

        ids = [change("POST", "/clients", {"name": name, "scopes": CLIENTS[name]})["id"] for name in CLIENTS]
        change("PATCH", "/topics/orders", {"retention_seconds": 604_800})
        change("PATCH", "/subscriptions/tracking", {"ack_deadline_seconds": 20})
        change("POST", "/subscriptions/fraud-check/pause")
        change("POST", "/subscriptions/fraud-check/resume")
        change("PATCH", "/subscriptions/warehouse", {"filter": {"country": ["BR", "US", "DE"]}})
        change("POST", f"/clients/{ids[0]}/secrets", {"old_secret_seconds": 86_400})
        letters = http.get("/subscriptions/billing/dlq", params={"limit": 100}).json()["data"]
    return next(str(one["id"]) for one in letters if one["payload"]["country"] == "BR")


ENDPOINT = {
    "endpoint": "https://letters.example/hooks/orders",
    "format": "cloudevents",
    "header_names": ["Authorization"],
    "timeout_seconds": 10,
    "max_concurrency": 10,
    "reject_on": [400, 422],
}
PUSHES = [
    *[("nack", 503, 1043, "busy: come again in a minute")] * 3,
    ("return", None, 3, "no connection: Connection refused"),
    ("reject", 422, 21, "the address of the customer is not known"),
    *[("ack", 204, milliseconds, "") for milliseconds in (18, 22, 17, 31)],
]
PUSHED = """
    with pushed as (
        update fastpubsub.cursors as c set is_pushed = true from fastpubsub.subscriptions as s
        where s.id = 'newsletter' and s.subscription_key = c.subscription_key
        returning c.topic_key, c.subscription_key, %s::timestamptz as now
    ), held as (
        insert into fastpubsub.dispatchers (process, seen_at) select 1, now + interval '1 day' from pushed
    )
    insert into fastpubsub.endpoints (
        topic_key, subscription_key, settings, secret, holder, failures, breaker_opened_at, next_try_at, last_failure
    )
    select
        topic_key, subscription_key, %s, '', 1, 7, now - interval '40 s', now + interval '90 s',
        'the endpoint answered 503: busy: come again in a minute'
    from pushed
"""
ATTEMPTED = """
    insert into fastpubsub.push_attempts (
        topic_key, subscription_key, position, created_at, pushed_at, attempt, outcome, status, milliseconds, said
    )
    select e.topic_key, e.subscription_key, m.position, m.created_at, %s, %s, %s, %s, %s, %s
    from fastpubsub.endpoints as e
    cross join lateral (
        select m.position, m.created_at from fastpubsub.messages as m
        where m.topic_key = e.topic_key order by m.position offset %s limit 1
    ) as m
"""


def push(store: Store, end: datetime) -> None:
    """One subscription is pushed, to a service that has begun to fail; nothing of it is sent by this server."""
    store.execute(PUSHED, end, json.dumps(ENDPOINT))
    for place, pushed in reversed(list(enumerate(PUSHES))):
        at = end - timedelta(seconds=4 + 9 * place)
        store.execute(ATTEMPTED, at, max(1, 3 - place), *pushed, 40 - place)


APART = """
    with numbered as (
        select change_key, row_number() over (order by change_key desc) as place from fastpubsub.changes
    )
    update fastpubsub.changes as c set changed_at = %s - n.place * interval '23 min'
    from numbered as n where n.change_key = c.change_key
"""


def rename(store: Store, end: datetime) -> dict[str, str]:
    """Gives clients and changes what is always the same: ids, and times before the end. Returns the ids by name."""
    found = store.rows("select id, name from fastpubsub.clients order by created_at")
    ids = {
        name: f"{(index + 2) * 0x1F3A5C7B:08x}-5d2e-4c1b-9a7f-3e8b6d0c{index:04x}"
        for index, (_, name) in enumerate(found)
    }
    for old, name in found:
        store.execute("update fastpubsub.clients set id = %s::uuid where id = %s", ids[name], old)
        store.execute("update fastpubsub.changes set client_id = %s where client_id = %s::text", ids[name], old)
        store.execute("update fastpubsub.changes set object_id = %s where object_id = %s::text", ids[name], old)
    store.execute(APART, end)
    store.execute("update fastpubsub.clients set (created_at, updated_at) = (%s, %s)", *[end - timedelta(hours=5)] * 2)
    return ids


def pictures(pilot: Pilot, shop: Opened, names: Sequence[str]) -> Iterator[tuple[str, str, bytes]]:
    pilot.cdp("Page.enable")
    pilot.cdp("Emulation.setScrollbarsHidden", hidden=True)
    pilot.cdp("Emulation.setTimezoneOverride", timezoneId="UTC")
    places = {"message": moved_id(shop.message, THEN - shop.end), "client": shop.clients["on-call"]}
    if "log-in" in names:
        pilot.open()
        pilot.sees("Client secret")
        yield from taken(pilot, "log-in")
    log_in(pilot, shop)
    for name in [name for name in names if name in PAGES]:
        page = PAGES[name]
        script = pilot.cdp("Page.addScriptToEvaluateOnNewDocument", source=shop.steady())
        pilot.open(page.place.format(**places))
        pilot.sees(page.text)
        page.prepare(pilot)
        yield from taken(pilot, name, page.height)
        pilot.cdp("Page.removeScriptToEvaluateOnNewDocument", **script)


def moved_id(message_id: str, by: timedelta) -> str:
    """Its first 48 bits are milliseconds."""
    head = f"{int(message_id[:8] + message_id[9:13], 16) + round(by.total_seconds() * 1000):012x}"
    return f"{head[:8]}-{head[8:]}{message_id[13:]}"


def log_in(pilot: Pilot, shop: Opened) -> None:
    pilot.open()
    pilot.sees("Client secret")
    pilot.browser.run("document.querySelector('[name=kept]').click()")
    pilot.fill("Client id", shop.clients["admin"])
    pilot.fill("Client secret", shop.secret)
    pilot.press("Log in", "button")
    pilot.sees("Overview")


def taken(pilot: Pilot, name: str, highest: int = 900) -> Iterator[tuple[str, str, bytes]]:
    """The page in both schemes, as high as it is, and the window as it was."""
    pilot.look(WIDTH)
    height = int(pilot.browser.run(CONTENT)) + MARGIN
    shots = []
    for scheme in SCHEMES:
        pilot.look(WIDTH, scheme, max(LOWEST, min(highest, height)))
        pilot.browser.run("document.activeElement?.blur()")
        pilot.settled()
        shots.append(pilot.cdp("Page.captureScreenshot", format="png")["data"])
    pilot.browser.open("about:blank")
    for scheme, shot in zip(SCHEMES, shots, strict=True):
        picture = pilot.browser.post("/execute/async", {"script": ENCODE, "args": [shot]})
        yield name, scheme, base64.b64decode(picture)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
