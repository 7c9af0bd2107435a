"""Two workers, 8 publishers and 8 consumers over sockets: what was sent, what arrived, and why it arrived twice."""

import asyncio
import itertools
import signal
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
import psutil
import psycopg
import pytest

from tests.conftest import Connect, StartServer
from tests.harness import Server

PUBLISHERS = CONSUMERS = 8
REQUESTS = 12
"""Of each publisher; `make torture` makes many more."""
BATCH = 10
SECONDS = 200.0

REPRESENTATION = {"Prefer": "return=representation"}


class Number(NamedTuple):
    publisher: int
    request: int
    place: int


class Delivery(NamedTuple):
    number: Number
    message_id: str
    attempt: int
    after_its_ack: bool


@dataclass
class History:
    """What everybody saw, in the way of Jepsen's total-queue: what goes in must come out."""

    attempted: set[Number] = field(default_factory=set)
    confirmed: set[Number] = field(default_factory=set)
    deliveries: list[Delivery] = field(default_factory=list)
    acked: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    lost_answers: int = 0

    @property
    def delivered(self) -> Counter[Number]:
        return Counter(delivery.number for delivery in self.deliveries)

    def check(self) -> None:
        delivered = self.delivered
        assert self.confirmed - delivered.keys() == set(), "lost"
        assert delivered.keys() - self.attempted == set(), "never sent"
        assert [one for one in self.deliveries if one.after_its_ack] == [], "delivered after its ack was answered"
        ids = defaultdict(set)
        for one in self.deliveries:
            ids[one.number].add(one.message_id)
        assert {number for number, found in ids.items() if len(found) > 1} == set(), "stored twice"
        attempts = Counter((one.message_id, one.attempt) for one in self.deliveries)
        assert {key for key, count in attempts.items() if count > 1} == set(), "a duplicate that no expiry explains"
        sizes = Counter(number[:2] for number in delivered)
        assert {request for request, size in sizes.items() if size != BATCH} == set(), "a part of a request was stored"
        assert self.statuses.keys() <= {200, 201, 503}, self.statuses


class Load:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.history = History()
        self.progress = asyncio.Condition()
        self.sent = 0

    async def prepare(self, **subscription: Any) -> None:
        (await self.client.post("/topics", json={"id": "t"})).raise_for_status()
        for name in ("s", "ordered"):
            body = {"id": name, "topic_id": "t", "max_delivery_attempts": 1000, **subscription}
            (await self.client.post("/subscriptions", json=body)).raise_for_status()

    async def run(self, disturb: Callable[[], Awaitable[None]] | None = None, disturbances: int = 0) -> None:
        """Disturbs that many times, evenly over what is published; ends when everything was consumed."""
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            publishing = [group.create_task(self.publish(number)) for number in range(PUBLISHERS)]
            consuming = [group.create_task(self.consume(number)) for number in range(CONSUMERS)]
            for turn in range(disturbances):
                await self.until_sent((turn + 1) * PUBLISHERS * REQUESTS // (disturbances + 1))
                assert disturb is not None
                await disturb()
            await asyncio.gather(*publishing)
            while await self.remaining():  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
            for task in consuming:
                task.cancel()
        self.history.check()

    async def until_sent(self, requests: int) -> None:
        async with self.progress:
            await self.progress.wait_for(lambda: self.sent >= requests)

    async def publish(self, publisher: int) -> None:
        for request in range(REQUESTS):
            numbers = [Number(publisher, request, place) for place in range(BATCH)]
            self.history.attempted.update(numbers)
            response = await self.ask("POST", "/topics/t/messages", json=[number._asdict() for number in numbers])
            if response is not None and response.is_success:
                self.history.confirmed.update(numbers)
            async with self.progress:
                self.sent += 1
                self.progress.notify_all()

    async def consume(self, consumer: int) -> None:
        while True:
            messages = await self.pull(consumer=f"c{consumer}")
            acked = self.history.acked
            self.history.deliveries += [
                Delivery(Number(**one["payload"]), one["id"], one["delivery_attempts"], one["id"] in acked)
                for one in messages
            ]
            if messages:
                ids = {one["ack_id"]: one["id"] for one in messages}
                response = await self.ask("POST", "/subscriptions/s/acks", json=list(ids))
                if response is not None and response.is_success:
                    acked.update(ids[ack_id] for ack_id in response.json()["settled"])

    async def pull(self, name: str = "s", consumer: str = "c") -> list[dict[str, Any]]:
        parameters: dict[str, str | int] = {"consumer_id": consumer, "batch_size": 50}
        response = await self.ask("GET", f"/subscriptions/{name}/messages", params=parameters)
        return list(response.json()["data"]) if response is not None and response.is_success else []

    async def remaining(self) -> bool:
        response = await self.ask("GET", "/subscriptions/s/metrics")
        if response is None or not response.is_success:
            return True
        metrics = response.json()
        return bool(metrics["available"] + metrics["delivered"])

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """None when the connection was lost: nobody knows what became of it."""
        try:
            response = await self.client.request(method, path, headers=REPRESENTATION, **options)
        except httpx.TransportError:
            self.history.lost_answers += 1
            return None
        self.history.statuses[response.status_code] += 1
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            assert int(response.headers["retry-after"]) >= 1
        return response


def load_on(started: Server) -> Load:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return Load(httpx.AsyncClient(base_url=started.base_url, timeout=SECONDS, limits=limits))


@pytest.mark.long
async def test_each_message_once_and_in_order_when_nobody_fails(server: StartServer) -> None:
    load = load_on(server(api_num_workers=2, log_requests=False))
    async with load.client:
        await load.prepare(ack_deadline_seconds=600)
        await load.run()
        history = load.history
        assert history.statuses.keys() <= {200, 201}
        assert history.lost_answers == 0
        assert history.confirmed == history.attempted
        assert set(history.delivered.values()) == {1}
        assert {delivery.attempt for delivery in history.deliveries} == {1}
        ordered = [Number(**one["payload"]) for one in await everything(load, "ordered")]
        for publisher in range(PUBLISHERS):
            of_publisher = [number for number in ordered if number.publisher == publisher]
            assert of_publisher == sorted(of_publisher), "each publisher's messages in its order"
        assert len(ordered) == PUBLISHERS * REQUESTS * BATCH


async def everything(load: Load, name: str) -> list[dict[str, Any]]:
    found = []
    while messages := await load.pull(name):
        found += messages
    return found


@pytest.mark.long
async def test_workers_that_are_killed(server: StartServer) -> None:
    started = server(api_num_workers=2, log_requests=False)
    load = load_on(started)
    killed: set[int] = set()

    async def kill() -> None:
        """The oldest worker, that is one which serves."""
        master = psutil.Process(started.process.pid)
        while not (alive := [worker for worker in master.children() if worker.pid not in killed]):
            await load.ask("GET", "/liveness")
        oldest = min(alive, key=lambda worker: worker.create_time())
        killed.add(oldest.pid)
        oldest.send_signal(signal.SIGKILL)

    async with load.client:
        await load.prepare(ack_deadline_seconds=1, backoff_min_seconds=0)
        await load.run(kill, disturbances=4)
    assert len(killed) == 4
    assert load.history.lost_answers
    assert len(load.history.confirmed) > len(load.history.attempted) / 2


@pytest.mark.long
async def test_database_sessions_that_are_ended(server: StartServer, connect: Connect) -> None:
    started = server(api_num_workers=2, log_requests=False)
    load = load_on(started)
    connection: psycopg.AsyncConnection = await connect()
    share = itertools.cycle([1, 2, 3])
    ended = 0

    async def end_sessions() -> None:
        """All of them, every second one, or every third one."""
        nonlocal ended
        found = await connection.execute(
            """
            select pg_terminate_backend(s.pid)
            from (
                select a.pid, row_number() over (order by a.pid) as ordinal from pg_stat_activity as a
                where a.datname = current_database() and a.application_name = 'fastpubsub'
            ) as s
            where s.ordinal %% %s = 0
            """,
            [next(share)],
        )
        ended += len(await found.fetchall())

    async with load.client:
        await load.prepare(ack_deadline_seconds=1, backoff_min_seconds=0)
        await load.run(end_sessions, disturbances=10)
    assert ended > 10
    assert load.history.lost_answers == 0, "a server that lost its database still answers"
    assert load.history.statuses[503]
    assert len(load.history.confirmed) > len(load.history.attempted) / 2
    assert "Traceback" not in started.output()


# the checker itself


def good_history() -> History:
    numbers = [Number(publisher, 0, place) for publisher in range(2) for place in range(BATCH)]
    deliveries = [Delivery(number, f"id of {number}", 1, False) for number in numbers]
    return History(set(numbers), set(numbers), deliveries, set(), Counter([200, 201]))


def lose_one(history: History) -> None:
    history.deliveries.pop()


def lose_a_request(history: History) -> None:
    del history.deliveries[:BATCH]


def deliver_what_was_never_sent(history: History) -> None:
    history.deliveries += [Delivery(Number(9, 9, place), f"id {place}", 1, False) for place in range(BATCH)]


def deliver_twice(history: History) -> None:
    history.deliveries.append(history.deliveries[0])


def deliver_after_the_ack(history: History) -> None:
    history.deliveries.append(history.deliveries[0]._replace(attempt=2, after_its_ack=True))


def store_twice(history: History) -> None:
    history.deliveries.append(history.deliveries[0]._replace(message_id="another"))


def tear(history: History) -> None:
    lost = history.deliveries.pop()
    history.confirmed -= {number for number in history.confirmed if number[:2] == lost.number[:2]}


def fail(history: History) -> None:
    history.statuses[500] += 1


FAULTS = [lose_one, lose_a_request, deliver_what_was_never_sent, deliver_twice, deliver_after_the_ack]
FAULTS += [store_twice, tear, fail]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checker_finds(fault: Callable[[History], None]) -> None:
    history = good_history()
    history.check()
    fault(history)
    with pytest.raises(AssertionError):
        history.check()


def test_the_checker_allows_a_redelivery_and_what_is_unknown() -> None:
    history = good_history()
    history.deliveries.append(history.deliveries[0]._replace(attempt=2))
    history.attempted.add(Number(5, 5, 0))
    history.statuses[503] += 1
    history.check()
