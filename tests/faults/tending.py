"""What a load has where dead letters, forks and refused messages are: who rejects, who publishes from SQL, who redrives
dead letters, who makes forks, and who looks whether what nobody uses has expired.
"""

import asyncio
import json
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.faults.callers import Caller, Consumer, Publisher
from tests.faults.features import run_transaction
from tests.faults.history import Kind, Number
from tests.faults.plan import BURIED, FAILING, IDLE, IDLE_SECONDS, KEPT, REASONS, SHAPED, Subscription
from tests.faults.wire import PAUSE_SECONDS, attempt, patiently

if TYPE_CHECKING:
    from tests.faults.load import Load

REJECTING = 0.2
"""Of the messages that a consumer gets where some are rejected."""

REDRIVES = 90
"""Of a subscription, at most: a server remembers the last 100."""

CANCELLING = 0.15
LOOK_SECONDS = 0.25
LATE_SECONDS = 2.0
"""What was buried earlier is not redriven, so that the limited consumers come to an end."""

FORKS = 5
FORK_SECONDS = 3.0
ORIGINAL = f"{FAILING}.even"
NOT_FOUND, TAKEN = 404, 409


class RejectingConsumer(Consumer):
    async def settle(self, pulled: list[tuple[Number, str]]) -> None:
        rejected = [one for one in pulled if self.load.is_failing and self.random.random() < REJECTING]
        for reason in REASONS:
            ids = [ack_id for number, ack_id in rejected if reason_of(number) == reason]
            await self.tell("rejects", ids, reason=reason)
        await super().settle([one for one in pulled if one not in rejected])


def reason_of(number: Number) -> str:
    return REASONS[(number.request + number.place) % len(REASONS)]


class EventPublisher(Publisher):
    """Publishes CloudEvents, whose `partitionkey` is the ordering key."""

    media = "application/cloudevents-batch+json"

    def body(self, numbers: list[Number]) -> object:
        same = {"specversion": "1.0", "source": f"/{self.name}", "type": "numbered", "partitionkey": self.name}
        return [{**same, "id": f"{one.request}-{one.place}", "data": one.payload()} for one in numbers]


class SqlPublisher(Publisher):
    """Publishes in a transaction, and dies between two statements of it now and then. Some messages are misfits."""

    async def publish(self, request: int, count: int) -> None:
        numbers = [Number(self.name, request, place) for place in range(count)]
        sent = {"topic": self.topic, "publisher": self.name, "request": request, "count": count}
        self.load.history.add(self.name, Kind.INVOKE, "publish", **sent)
        statement = "select fastpubsub.publish(%s, %s::json, ordering_key => %s)"
        steps = [(statement, [self.topic, json.dumps(shaped(one)), self.name]) for one in numbers]
        outcome = await run_transaction(self, steps)
        self.load.history.add(self.name, outcome, "publish")
        if outcome is Kind.OK:
            self.load.confirmed[self.topic] += count
        else:
            await asyncio.sleep(PAUSE_SECONDS)


def shaped(number: Number) -> dict[str, Any]:
    return {**number.payload(), **({"parity": "odd"} if number.is_misfit else {})}


class Redriver(Caller):
    """Reprocesses or purges what matches, one after the other, and watches how far each has come."""

    def __init__(self, load: "Load", subscription: Subscription) -> None:
        super().__init__(load, f"{subscription.name}.redriver")
        self.subscription = subscription
        self.path = f"/subscriptions/{subscription.name}/redrives"

    async def run(self) -> None:
        begun = 0
        while self.load.is_publishing:
            await asyncio.sleep(LOOK_SECONDS)
            if begun < REDRIVES:
                begun += 1
                await self.redrive()
        redrives = await self.all()
        while any(one["state"] == "running" for one in redrives):
            await asyncio.sleep(LOOK_SECONDS)
            redrives = await self.all()
        self.load.history.note("redrives", subscription=self.subscription.name, redrives=redrives)

    async def all(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await patiently(self.wire, "GET", self.path))["data"]
        return found

    async def redrive(self) -> None:
        """If nobody knows whether it began, it goes on beside the next one."""
        answer = await attempt(self.wire, "POST", self.path, self.body())
        if answer is None or answer.status != 201:
            return
        redrive = answer.json()
        path = f"{self.path}/{redrive['id']}"
        is_cancelled = self.random.random() < CANCELLING
        while redrive["state"] == "running":
            await asyncio.sleep(LOOK_SECONDS)
            if is_cancelled or not self.load.is_publishing:
                await attempt(self.wire, "DELETE", path)
            since = time.time()
            redrive = await patiently(self.wire, "GET", path)
            self.load.history.note(
                "redrive", subscription=self.subscription.name, id=redrive["id"], since=since, done=redrive["done"]
            )
        if redrive["state"] == "done":
            await self.look_for_what_is_left(redrive)

    async def look_for_what_is_left(self, redrive: dict[str, Any]) -> None:
        names = ("reason", "died_after", "died_before")
        query = urlencode({"limit": 100} | {name: redrive[name] for name in names if redrive[name]})
        answer = await patiently(self.wire, "GET", f"/subscriptions/{self.subscription.name}/dlq?{query}")
        parities = (redrive["filter"] or {}).get("parity", [0, 1])
        left = [one["id"] for one in answer["data"] if one["payload"]["parity"] in parities]
        self.load.history.note("left", subscription=self.subscription.name, id=redrive["id"], left=left)

    def body(self) -> dict[str, Any]:
        action = self.random.choice(["reprocess", "reprocess", "purge"])
        rates = [50, 200, 1000] if action == "purge" else [10, 20, 50]
        body = {"action": action, "per_second": self.random.choice(rates)}
        if self.subscription.max_backlog:
            late = datetime.now().astimezone() - timedelta(seconds=LATE_SECONDS)
            is_late = {"died_after": late.isoformat()} if action == "reprocess" else {}
            return {**body, "reason": BURIED, **is_late}
        filtered = {"filter": {"parity": [self.random.randint(0, 1)]}} if self.random.random() < 0.3 else {}
        return {**body, "reason": self.random.choice(REASONS), **filtered}


class Forker(Caller):
    """Makes forks of a subscription, each of which is then consumed like any other."""

    def __init__(self, load: "Load") -> None:
        super().__init__(load, "forker")

    async def run(self) -> None:
        made = 0
        while self.load.is_publishing:
            await asyncio.sleep(self.random.uniform(0.5, 1.0) * FORK_SECONDS)
            if made < FORKS and self.load.is_publishing:
                (original,) = (one for one in KEPT if one.name == ORIGINAL)
                await self.fork(replace(original, kind=f"fork{made}", ordered=made % 2 == 0, original=ORIGINAL))
                made += 1

    async def fork(self, fork: Subscription) -> None:
        """Until it is known to be there."""
        sent = {"subscription": fork.name, "original": fork.original}
        answer = None
        while answer is None:
            answer = await self.call("fork", "POST", "/subscriptions", sent, fork.body(), final=TAKEN)
        self.load.plan.forks.append(fork)
        self.load.start_consumers(fork)


class Sitter(Caller):
    """Looks whether the subscription that nobody uses is still there."""

    def __init__(self, load: "Load") -> None:
        super().__init__(load, "sitter")

    async def run(self) -> None:
        """Until publishing is over."""
        created = time.time()
        body = {"id": IDLE, "topic_id": FAILING, "expire_after_seconds": IDLE_SECONDS}
        answer = await attempt(self.wire, "POST", "/subscriptions", body)
        while answer is None or answer.status >= 500:
            await asyncio.sleep(PAUSE_SECONDS)
            answer = await attempt(self.wire, "POST", "/subscriptions", body)
        there, gone = created, 0.0
        while not gone and self.load.is_publishing:
            await asyncio.sleep(LOOK_SECONDS)
            asked = time.time()
            answer = await attempt(self.wire, "GET", f"/subscriptions/{IDLE}")
            if answer is not None and answer.status == 200:
                there = asked
            if answer is not None and answer.status == NOT_FOUND:
                gone = time.time()
        self.load.history.note("idle", created=created, there=there, gone=gone)


Tender = Redriver | Forker | Sitter


async def note_refused(load: "Load") -> None:
    """All that was refused, with the reasons."""
    wire = load.wire()
    refused: list[list[Any]] = []
    page = await patiently(wire, "GET", f"/topics/{SHAPED}/refused?limit=100")
    while True:
        refused += [[one["payload"]["number"], one["reason"]] for one in page["data"]]
        if not (token := page.get("next_page_token")):
            break
        page = await patiently(wire, "GET", f"/topics/{SHAPED}/refused?limit=100&page_token={token}")
    load.history.note("refused", refused=refused)
