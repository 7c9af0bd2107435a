"""Whatever happens and in whatever order: each request gets its own answer, and no answer gets lost."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpubsub.exceptions import FastpubsubError, InvalidRequest, NotFound, OutcomeUnknown, Overloaded, Unavailable
from fastpubsub.services.coalescer import Bounds, Coalescer

BOUNDS = Bounds(rows=6, size=60, queued_rows=12, queued_size=100)
KEYS = ("a", "b")
PATIENCE = 60.0
"""Seconds, for what must end at once."""


class Request(NamedTuple):
    number: int
    rows: int = 1
    size: int = 10
    is_bad: bool = False


Answer = str


def answer_of(key: str, request: Request) -> Answer:
    return f"{key}:{request.number}"


class Call(NamedTuple):
    requests: list[Request]
    outcome: asyncio.Future[FastpubsubError | None]


class Server:
    """In place of a procedure: each call waits to be finished, and stores nothing when one request is bad."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.stored: dict[str, list[int]] = defaultdict(list)
        self.unclaimed: list[Answer] = []
        self.most_at_once = 0
        self.is_finishing = False

    async def __call__(self, key: str, requests: Sequence[Request]) -> list[Answer]:
        call = Call(list(requests), asyncio.get_running_loop().create_future())
        self.calls[key].append(call)
        self.most_at_once = max(self.most_at_once, len(self.calls[key]))
        assert requests
        assert len(requests) == 1 or sum(request.rows for request in requests) <= BOUNDS.rows
        assert len(requests) == 1 or sum(request.size for request in requests) <= BOUNDS.size
        try:
            error = None if self.is_finishing else await call.outcome
        finally:
            self.calls[key].remove(call)
        if error is not None:
            raise error
        if any(request.is_bad for request in requests):
            raise InvalidRequest("a bad request") from psycopg.errors.NumericValueOutOfRange()
        self.stored[key] += [request.number for request in requests]
        return [answer_of(key, request) for request in requests]

    def finish(self, key: str, error: FastpubsubError | None = None) -> None:
        """The call that is in flight, if there is one."""
        for call in self.calls[key]:
            if not call.outcome.done():
                call.outcome.set_result(error)

    def take_back(self, _key: str, answer: Answer) -> None:
        self.unclaimed.append(answer)


def make(server: Server, bounds: Bounds = BOUNDS) -> Coalescer[str, Request, Answer]:
    return Coalescer(server, bounds, server.take_back)


async def gather(tasks: list[asyncio.Task[Answer]]) -> list[Answer | BaseException]:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def turns(count: int = 10) -> None:
    """Of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


# any interleaving


@dataclass
class Run:
    server: Server = field(default_factory=Server)
    tasks: dict[int, asyncio.Task[Answer]] = field(default_factory=dict)
    requests: dict[int, tuple[str, Request]] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)

    async def play(self, steps: list[tuple[str, ...]]) -> None:
        self.coalescer = make(self.server)
        for kind, *arguments in steps:
            await getattr(self, kind)(*arguments)
        self.server.is_finishing = True
        for key in KEYS:
            self.server.finish(key)
        await turns(1)
        async with asyncio.timeout(PATIENCE):
            await self.coalescer.drain()
            assert not any(self.server.calls.values()), "drained, and yet in flight"
            await asyncio.wait([*self.tasks.values(), asyncio.create_task(turns())])

    async def submit(self, key: str, rows: int, size: int, is_bad: bool, count: int) -> None:
        for _ in range(count):
            request = Request(len(self.tasks), rows, size, is_bad)
            self.requests[request.number] = key, request
            submitted = self.coalescer.submit(key, request, rows=rows, size=size)
            self.tasks[request.number] = asyncio.create_task(submitted)

    async def finish(self, key: str, error: FastpubsubError | None, count: int) -> None:
        self.server.finish(key, error)
        await turns(count)

    async def cancel(self, place: float, count: int) -> None:
        if self.tasks:
            number = int(place * len(self.tasks))
            if self.tasks[number].cancel():
                self.cancelled.add(number)
        await turns(count)

    def check(self) -> None:
        stored = {number for numbers in self.server.stored.values() for number in numbers}
        answers = Counter(self.server.unclaimed)
        for number, task in self.tasks.items():
            key, request = self.requests[number]
            if task.cancelled():
                assert number in self.cancelled
                assert answers[answer_of(key, request)] == (number in stored), "given back once, if there was something"
            elif task.exception() is None:
                assert task.result() == answer_of(key, request)
                assert number in stored
                assert not answers[answer_of(key, request)]
            else:
                assert number not in stored
                assert isinstance(task.exception(), InvalidRequest) <= request.is_bad, "only the bad one is blamed"
        assert max(answers.values(), default=1) == 1
        for numbers in self.server.stored.values():
            assert numbers == sorted(set(numbers)), "once each, in their order"
        assert self.server.most_at_once <= 1


keys = st.sampled_from(KEYS)
counts = st.integers(0, 5)
errors = st.sampled_from([None, None, None, OutcomeUnknown("lost"), Unavailable("full")])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), keys, st.integers(1, 8), st.integers(0, 70), st.booleans(), st.integers(1, 3)),
        st.tuples(
            st.just("submit"), keys, st.just(1), st.just(5), st.sampled_from([False, False, True]), st.integers(1, 4)
        ),
        st.tuples(st.just("finish"), keys, errors, counts),
        st.tuples(st.just("cancel"), st.floats(0, 1, exclude_max=True), counts),
    ),
    max_size=40,
)


@settings(max_examples=500)
@given(steps=steps)
def test_any_interleaving(steps: list[tuple[str, ...]]) -> None:
    run = Run()
    asyncio.run(run.play(steps))
    run.check()


# each rule by itself


@pytest.fixture
def server() -> Server:
    return Server()


Tasks = list[asyncio.Task[Answer]]


def submit(coalescer: Coalescer[str, Request, Answer], *requests: Request, key: str = "a") -> Tasks:
    return [
        asyncio.create_task(coalescer.submit(key, request, rows=request.rows, size=request.size))
        for request in requests
    ]


def in_flight(server: Server, key: str = "a") -> list[list[int]]:
    return [[request.number for request in call.requests] for call in server.calls[key]]


async def test_what_waits_goes_together(server: Server) -> None:
    coalescer = make(server)
    tasks = submit(coalescer, Request(0))
    await turns()
    tasks += submit(coalescer, Request(1), Request(2), Request(3))
    await turns()
    assert in_flight(server) == [[0]]
    server.finish("a")
    await turns()
    assert in_flight(server) == [[1, 2, 3]]
    assert [task.done() for task in tasks] == [True, False, False, False]
    server.finish("a")
    assert await gather(tasks) == ["a:0", "a:1", "a:2", "a:3"]


async def test_what_comes_before_a_key_is_ready_goes_with_it() -> None:
    asked, ready = asyncio.Event(), asyncio.Event()
    sizes: list[int] = []
    calls: list[list[int]] = []

    async def wait(size: int) -> None:
        sizes.append(size)
        asked.set()
        await ready.wait()

    async def call(key: str, requests: Sequence[Request]) -> list[Answer]:
        calls.append([request.number for request in requests])
        return [answer_of(key, request) for request in requests]

    coalescer = Coalescer(call, BOUNDS, ready=wait)
    tasks = [asyncio.create_task(coalescer.submit("a", Request(number), size=10)) for number in range(3)]
    await asked.wait()
    tasks.append(asyncio.create_task(coalescer.submit("a", Request(3))))
    await asyncio.sleep(0)
    assert not calls
    ready.set()
    assert await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE) == ["a:0", "a:1", "a:2", "a:3"]
    assert (sizes, calls) == ([30], [[0, 1, 2, 3]])


async def test_keys_do_not_wait_for_each_other(server: Server) -> None:
    coalescer = make(server)
    one, other = *submit(coalescer, Request(0)), *submit(coalescer, Request(1), key="b")
    await turns()
    server.finish("b")
    assert await other == "b:1"
    assert not one.done()
    server.finish("a")
    assert await one == "a:0"


@pytest.mark.parametrize(
    ("requests", "calls"),
    [
        ([Request(n, rows=2) for n in range(6)], [[0, 1, 2], [3, 4, 5]]),
        ([Request(n, size=25) for n in range(4)], [[0, 1], [2, 3]]),
        ([Request(0, rows=6), Request(1)], [[0], [1]]),
        ([Request(0), Request(1, rows=7), Request(2)], [[0], [1], [2]]),
        ([Request(0), Request(1, size=70), Request(2)], [[0], [1], [2]]),
    ],
)
async def test_a_call_has_bounds(server: Server, requests: list[Request], calls: list[list[int]]) -> None:
    tasks = submit(make(server), *requests)
    seen = []
    for _ in calls:
        await turns()
        seen += in_flight(server)
        server.finish("a")
    await gather(tasks)
    assert seen == calls


@pytest.mark.parametrize("waiting", [Request(1, rows=12), Request(1, size=100)])
async def test_a_full_queue_refuses_at_once(server: Server, waiting: Request) -> None:
    coalescer = make(server)
    first = submit(coalescer, Request(0))
    await turns()
    second = submit(coalescer, waiting)
    await turns()
    with pytest.raises(Overloaded):
        await asyncio.wait_for(coalescer.submit("a", Request(2), rows=1, size=10), PATIENCE)
    other = submit(coalescer, Request(3), key="b")
    for _ in range(2):
        await turns()
        server.finish("a")
        server.finish("b")
    await gather([*first, *second, *other])
    server.is_finishing = True
    assert await coalescer.submit("a", Request(4), rows=1, size=10) == "a:4", "there is room again"


async def test_one_that_is_larger_than_the_queue_goes_alone(server: Server) -> None:
    server.is_finishing = True
    assert await make(server).submit("a", Request(0, rows=99, size=999), rows=99, size=999) == "a:0"


@pytest.mark.parametrize("bad", [[0], [1], [4], [0, 4], [1, 2], [0, 1, 2, 3, 4], []])
async def test_only_the_bad_ones_fail(server: Server, bad: list[int]) -> None:
    server.is_finishing = True
    tasks = submit(make(server), *[Request(n, is_bad=n in bad) for n in range(5)])
    answers = await gather(tasks)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, InvalidRequest)] == bad
    assert server.stored["a"] == [n for n in range(5) if n not in bad]


class NoTopic(psycopg.DatabaseError):
    sqlstate = "FP404"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OutcomeUnknown("lost"), psycopg.OperationalError("no SQLSTATE: the connection was lost")),
        (OutcomeUnknown("cut"), psycopg.errors.AdminShutdown()),
        (OutcomeUnknown("cancelled"), psycopg.errors.QueryCanceled()),
        (Unavailable("full"), psycopg.errors.DiskFull()),
        (Unavailable("read-only"), psycopg.errors.ReadOnlySqlTransaction()),
        (Unavailable("no connection"), None),
        (RuntimeError("a defect"), None),
        # Nothing was stored either, but no member is to blame: each replay would wait or fail like the first.
        (NotFound("the topic is gone"), NoTopic()),
        (Unavailable("locked"), psycopg.errors.LockNotAvailable()),
        (Unavailable("deadlock"), psycopg.errors.DeadlockDetected()),
    ],
)
async def test_nothing_is_replayed_but_what_one_of_them_is_to_blame_for(
    error: Exception, cause: Exception | None
) -> None:
    calls = 0

    async def fail(_key: str, _requests: Sequence[Request]) -> list[Answer]:
        nonlocal calls
        calls += 1
        raise error from cause

    coalescer: Coalescer[str, Request, Answer] = Coalescer(fail, BOUNDS)
    answers = await gather(submit(coalescer, Request(0), Request(1), Request(2)))
    assert answers == [error, error, error]
    assert calls == 1


async def test_an_answer_for_each_or_an_error_for_each(server: Server) -> None:
    """A call with too few answers is a defect; it must not leave anybody waiting, now or later."""

    async def forget_one(key: str, requests: Sequence[Request]) -> list[Answer]:
        return [answer_of(key, request) for request in requests[1:]] if len(requests) > 1 else ["a:x"]

    coalescer: Coalescer[str, Request, Answer] = Coalescer(forget_one, BOUNDS)
    answers = await gather(submit(coalescer, Request(0), Request(1)))
    assert all(isinstance(answer, ValueError) for answer in answers)
    assert await asyncio.wait_for(coalescer.submit("a", Request(2)), PATIENCE) == "a:x"


# cancellation


async def test_who_leaves_the_queue_is_not_asked_for(server: Server) -> None:
    coalescer = make(server)
    first, second, third = submit(coalescer, Request(0), Request(1, rows=6), Request(2, rows=5))
    await turns()
    second.cancel()
    server.finish("a")
    await turns()
    assert in_flight(server) == [[2]]
    server.finish("a")
    assert (await first, await third) == ("a:0", "a:2")
    assert server.unclaimed == []


async def test_who_leaves_does_not_cancel_the_call_of_others(server: Server) -> None:
    first, second = submit(make(server), Request(0), Request(1))
    await turns()
    first.cancel()
    await turns()
    server.finish("a")
    assert await second == "a:1"
    assert server.unclaimed == ["a:0"]


async def test_an_answer_that_was_given_and_not_yet_seen_is_given_back(server: Server) -> None:
    coalescer = make(server)
    (task,) = submit(coalescer, Request(0))
    await turns()
    server.finish("a")
    while not server.stored["a"]:
        await turns(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.unclaimed == ["a:0"]


async def test_all_leave(server: Server) -> None:
    coalescer = make(server)
    tasks = submit(coalescer, *map(Request, range(3)))
    await turns()
    tasks += submit(coalescer, *map(Request, range(3, 6)))
    await turns()
    for task in tasks:
        task.cancel()
    server.finish("a")
    await asyncio.wait_for(coalescer.drain(), PATIENCE)
    assert sorted(server.unclaimed) == ["a:0", "a:1", "a:2"]
    assert server.stored["a"] == [0, 1, 2]


async def test_drain_waits_for_what_is_queued(server: Server) -> None:
    coalescer = make(server)
    await coalescer.drain()
    tasks = submit(coalescer, Request(0), Request(1, rows=6)) + submit(coalescer, Request(2), key="b")
    await turns()
    draining = asyncio.create_task(asyncio.wait_for(coalescer.drain(), PATIENCE))
    await turns()
    tasks += submit(coalescer, Request(3), key="c")
    for key in ("a", "b", "a"):
        server.finish(key)
        await turns()
        assert not draining.done()
    server.finish("c")
    await draining
    assert all(task.done() for task in tasks)
