"""What is refused costs no more than what is accepted: every operation, every list and object, every frame."""

import asyncio
import functools
import itertools
import json
import re
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from fastpubsub.api import bodies
from fastpubsub.api.app import create_app
from fastpubsub.api.frames import FrameSettler
from fastpubsub.api.security import ScopedRoute
from fastpubsub.api.server import uvicorn_options
from fastpubsub.cloudevents import BATCH, STRUCTURED
from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from tests import harness
from tests.api.calls import JSON, PATIENCE, Calls, problem, success
from tests.api.conftest import app_of
from tests.api.good import GOOD, UUID
from tests.conftest import MakeSettings, StartServer

ACK_ID = f"{UUID}.0123456789abcdef"
FORM = {"Content-Type": bodies.FORM}
FUNCTIONS = Path(__file__).parents[2] / "migrations" / "functions"
SECONDS = 0.5
SECONDS_PER_MEGABYTE = 1.0
"""Of the processor, on a machine that is slow, busy, and counts its memory meanwhile, which triples it."""

MEGABYTE = 1_000_000
ELEMENTS = [b"1", b"[]", b"{}", b'""', b'"%b"' % ACK_ID.encode(), b'{"a":1}']


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """A quarter of the body that a publish may have by default: what grows faster than the body shows all the same."""
    return make_settings(api_max_body_bytes=2_500_000)


# what a body may be, by the document


def resolved(schema: Any, document: Any) -> Any:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def places(schema: Any, document: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Where a list or an object can stand: names of members, `[]` for an element of a list, `*` for any."""
    schema = resolved(schema, document)
    for kind in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(kind, ()):
            yield from places(one, document, path)
    if schema.get("type") in ("object", "array"):
        yield path, True
    for name, member in schema.get("properties", {}).items():
        yield (*path, name), False
        yield from places(member, document, (*path, name))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from places(schema["additionalProperties"], document, (*path, "*"))
    if "items" in schema:
        yield from places(schema["items"], document, (*path, "[]"))


def around(path: tuple[str, ...], good: Any) -> tuple[bytes, bytes]:
    """What stands before and behind a place, with the other members that a good request has."""
    before, after = b"", b""
    for depth, name in enumerate(path):
        if name == "[]":
            before, after = before + b"[", b"]" + after
            continue
        others = good if depth == 0 and isinstance(good, dict) else {}
        rest = b"".join(
            b"%b:%b," % (json.dumps(k).encode(), json.dumps(v).encode()) for k, v in others.items() if k != name
        )
        before, after = before + b'{%b"%b":' % (rest, b"a" if name == "*" else name.encode()), b"}" + after
    return before, after


def fillings(size: int) -> Iterator[tuple[str, bytes]]:
    """Lists and objects of about that many bytes."""
    for element in ELEMENTS:
        yield f"list of {element.decode()}", b"[%b]" % ((element + b",") * (size // (len(element) + 1)))[:-1]
    for value in (b"1", b"[]", b'""'):
        width = len(value) + 11
        count = size // width
        yield f"members {value.decode()}", b"{%b}" % members(value, count.bit_length())[: count * width - 1]
    yield "one name again and again", b"{%b}" % (b'"a":[],' * (size // 7))[:-1]


@functools.cache
def members(value: bytes, bits: int) -> bytes:
    """More than a number of so many bits says, of one width, each with a comma behind it: to write them takes longer
    than all that is done with them.
    """
    return b"".join(b'"%07d":%b,' % (index, value) for index in range(1 << bits))


def of_route(route: str, schema: Any, document: Any, limit: int) -> Iterator[tuple[str, bytes]]:
    good = next(one.body for one in GOOD if one.route == route)
    containers = {()} | {path for path, is_container in places(schema, document) if is_container}
    for path in sorted({()} | {path for path, _ in places(schema, document)}):
        before, after = around(path, good)
        for name, filling in fillings(limit - len(before) - len(after) - 2):
            if path in containers or "[]" in name:  # of what is neither, the two that are the most work
                yield f"{'.'.join(path)}: {name}", before + filling + after
    if isinstance(good, dict):
        start = json.dumps(good).encode()[:-1]
        for name, filling in fillings(limit - len(start) - 2):
            if filling[:1] == b"{":
                yield f"besides: {name}", start + b"," + filling[1:]


def operations(settings: Settings) -> dict[str, tuple[int, dict[str, Any], Any]]:
    """Of each that takes JSON: the limit and the schemas by media type."""
    app = create_app(settings)
    document = app.openapi()
    routes = {f"{method} {one.path}": one for one in walk(app.routes) for method in one.methods or ()}
    found = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if content := operation.get("requestBody", {}).get("content"):
                route = routes[f"{method.upper()} {path}"]
                found[f"{method.upper()} {path}"] = (route.access.limit(settings), content, document)
    return found


def walk(routes: Any) -> Iterator[ScopedRoute]:
    from fastapi.routing import iter_route_contexts

    for context in iter_route_contexts(routes):
        route = getattr(context, "route", context)
        if isinstance(route, ScopedRoute):
            yield route


# what it costs


async def cost(client: httpx.AsyncClient, method: str, url: str, **options: Any) -> tuple[httpx.Response, float]:
    """In seconds of this process; `/liveness` is asked meanwhile."""
    started = time.process_time()
    response, alive = await asyncio.gather(client.request(method, url, **options), client.get("/liveness"))
    assert alive.status_code == 200
    return response, time.process_time() - started


async def answer_soon(client: httpx.AsyncClient, method: str, url: str, body: bytes, what: str) -> float:
    """The seconds that it took."""
    response, seconds = await cost(client, method, url, content=body, headers=JSON)
    assert response.status_code < 500, (what, response.text)
    assert len(response.content) < 4096, what
    assert seconds < SECONDS + SECONDS_PER_MEGABYTE * len(body) / MEGABYTE, (what, seconds)
    return seconds


async def refuse(client: httpx.AsyncClient, method: str, url: str, body: bytes, what: str, headers: Any = JSON) -> None:
    megabytes = len(body) / MEGABYTE
    tracemalloc.start()
    try:
        response, seconds = await cost(client, method, url, content=body, headers=headers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response.status_code < 500, (what, response.text)
    assert len(response.content) < 4096, what
    bound = SECONDS + SECONDS_PER_MEGABYTE * megabytes
    if seconds >= bound:  # once more, without what counts the memory
        _, seconds = await cost(client, method, url, content=body, headers=headers)
    assert seconds < bound, (what, seconds)
    assert peak < (3 * megabytes if megabytes > 1 else 4 + 40 * megabytes) * MEGABYTE, (what, peak, response.text)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_every_list_and_object_of_every_operation(client: httpx.AsyncClient, settings: Settings) -> None:
    found = operations(settings)
    assert set(found) >= {good.route for good in GOOD if good.body is not None}
    tried = 0
    for route, (limit, content, document) in found.items():
        good = next(one for one in GOOD if one.route == route)
        if "application/json" not in content or limit > MEGABYTE:
            continue
        request = (client, good.method, f"{good.path}?{good.query}")
        tries = of_route(route, content["application/json"]["schema"], document, limit)
        for _, of_place in itertools.groupby(tries, lambda one: one[0].partition(":")[0]):
            seconds: dict[str, float] = {}
            bodies_: dict[str, bytes] = dict(of_place)
            for what, body in bodies_.items():
                assert len(body) <= limit
                seconds[what] = await answer_soon(*request, body, f"{route} {what}")
                tried += 1
            # What fills memory takes time, and counting memory takes three times as long.
            heaviest = max(seconds, key=seconds.__getitem__)
            await refuse(*request, bodies_[heaviest], f"{route} {heaviest}")
    assert tried > 100


LARGE = [
    "list of 1",
    "list of {}",
    'list of {"a":1}',
    "members 1",
    'members ""',
    "one name again and again",
]


@pytest.mark.long
async def test_a_publish_of_any_form(client: httpx.AsyncClient, settings: Settings, calls: Calls) -> None:
    await calls.topic()
    limit = settings.api_max_body_bytes
    event = b'"specversion":"1.0","id":"1","source":"s","type":"t","data":{}'
    around_ = {
        "the body": (b"", b"", JSON),
        "messages": (b'{"messages":', b"}", JSON),
        "attributes": (b'{"messages":[{"payload":{},"attributes":', b"}]}", JSON),
        "a batch": (b"", b"", {"Content-Type": BATCH}),
        "an attribute of an event": (b'[{%b,"x":' % event, b"}]", {"Content-Type": BATCH}),
        "one event": (b"", b"", {"Content-Type": STRUCTURED}),
    }
    filled = {name: filling for name, filling in fillings(limit - 200) if name in LARGE}
    assert len(filled) == len(LARGE)
    for place, (before, after, headers) in around_.items():
        for name, filling in filled.items():
            await refuse(client, "POST", "/topics/t/messages", before + filling + after, f"{place}: {name}", headers)
    members = filled['members ""'][1:]
    for headers, before, after in (({"Content-Type": STRUCTURED}, b"{", b""), ({"Content-Type": BATCH}, b"[{", b"]")):
        body = before + event + b"," + members + after
        await refuse(client, "POST", "/topics/t/messages", body, f"members of an event {headers}", headers)


PARAMETERS = ["offset=1", "consumer_id=c", "limit=0", "delay_seconds=1", "wait_seconds=-1"]


def query_parameters(settings: Settings) -> dict[str, set[str]]:
    """Of each route, by the document."""
    paths = create_app(settings).openapi()["paths"]
    return {
        f"{method.upper()} {path}": {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
        for path, item in paths.items()
        for method, operation in item.items()
    }


@pytest.mark.long
async def test_forms_and_queries(client: httpx.AsyncClient, settings: Settings) -> None:
    parts = [b"a", b"a=1", b"a=", b"", b"%61=%62", b"client_id=x", b"grant_type=client_credentials"]
    for route in ("/oauth/token", "/oauth/introspect"):
        for part in parts:
            body = b"&".join([part] * (bodies.SMALL_BYTES // (len(part) + 1)))
            await refuse(client, "POST", route, body, f"{route} {part!r}", FORM)
    taken = query_parameters(settings)
    assert {part.partition("=")[0] for part in PARAMETERS} <= set().union(*taken.values())
    for good in GOOD:
        if good.path.endswith("/stream"):
            continue  # which need no end; their parameters are those of the pull and of the topics
        # To all others a parameter is as unknown as "x".
        known = [part for part in PARAMETERS if part.partition("=")[0] in taken.get(good.route, ())]
        for parameter in ["x", "", *known]:
            query = "&".join([parameter] * (30_000 // (len(parameter) + 1)))
            response, seconds = await cost(client, good.method, f"{good.path}?{query}", json=good.body)
            assert response.status_code < 500
            assert seconds < 2 * SECONDS, (good.route, parameter, seconds)


async def test_every_frame(client: httpx.AsyncClient, settings: Settings) -> None:
    limit = bodies.ids(settings)
    assert uvicorn_options(settings)["ws_max_size"] == limit
    state = app_of(client).state
    look_again = functools.partial(state.authenticator.look_again, None)
    settler = FrameSettler(state.settling, "s", settings.settle_max_ids, look_again)
    for kind in ("ack", "nack", "reject", "extend", "x"):
        for name, filling in fillings(limit - 100):
            start = b'{"type":"%b","extend_seconds":5,"ids":' % kind.encode()
            for frame in (start + filling + b"}", filling, start[:-6] + b'"ids":[],"a":1,' + filling[1:]):
                tracemalloc.start()
                started = time.process_time()
                answer = await settler.answer(frame.decode())
                seconds = time.process_time() - started
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                assert answer is not None, (kind, name)
                assert json.loads(answer)["type"] == "error"
                assert len(answer) < 4096
                assert seconds < 2 * SECONDS, (kind, name, seconds)
                assert peak < 8 * MEGABYTE, (kind, name, peak)


# what fits


async def test_as_many_ids_as_a_request_may_have_fit(
    client: httpx.AsyncClient, calls: Calls, settings: Settings
) -> None:
    await calls.topic_and_subscription()
    ids = [ACK_ID] * settings.settle_max_ids
    reason = "\N{GRINNING FACE}" * 1024
    for path, body in {
        "acks": ids,
        "nacks": ids,
        "dlq/reprocess": ids,
        "rejects": {"ids": ids, "reason": reason},
        "leases": {"ids": ids, "extend_seconds": 5},
    }.items():
        for written in (json.dumps(body), json.dumps(body, indent=4), json.dumps(body, ensure_ascii=False)):
            response = await client.post(f"/subscriptions/s/{path}", content=written.encode(), headers=JSON)
            assert response.status_code in (200, 204), (path, response.text)
    problem(await client.post("/subscriptions/s/acks", json=[*ids, ACK_ID]), 413)


async def test_the_largest_filter_and_the_largest_schema_fit(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    await calls.topic("schema", schema={"description": "x" * 65_000, "maxProperties": 5})
    filter_ = {f"{field:03d}": [f"{value:060d}" for value in range(10)] for field in range(100)}
    await calls.subscription(filter=filter_)
    found = success(await client.get("/subscriptions/s"), 200)
    assert found["filter"] == filter_


def test_limits_never_exceed_that_of_a_publish(make_settings: MakeSettings) -> None:
    small = make_settings(api_max_body_bytes=2000)
    assert {limit for limit, _, _ in operations(small).values()} == {2000}
    many = make_settings(settle_max_ids=5000, schema_max_bytes=1_048_576)
    limits = {route: limit for route, (limit, _, _) in operations(many).items()}
    assert limits["POST /subscriptions/{subscription_id}/acks"] == 16_384 + 5000 * 64
    assert limits["PATCH /topics/{topic_id}"] == 16_384 + 1_048_576
    assert limits["POST /clients"] == 16_384


# before the database


REFUSED_BY_SQL = {
    "a filter must be an object that maps field names to lists of values": '{"filter": [1]}',
    "the filter names the field %s twice": '{"filter": {"a": [1], "a": [2]}}',
    "the filter of the field %s must be a list of at least one value": '{"filter": {"a": []}}',
    "a filter cannot compare a value with %s": '{"filter": {"a": [{}]}}',
    '"anything-but" does not take %s': '{"filter": {"a": [{"anything-but": []}]}}',
    "an object of a filter must name at least one field": '{"filter": {"a": {"b": {}}}}',
    "a filter has at most 10 levels": '{"filter": ' + '{"a": ' * 11 + "[1]" + "}" * 12,
    "a filter has at most 100 fields and 1000 values": json.dumps({"filter": {"a": [1] * 1001}}),
    "backoff_max_seconds must not be below backoff_min_seconds": '{"backoff_min_seconds": 9, "backoff_max_seconds": 8}',
}
"""By what says so: what is asked of the API. What only SQL publishes, and what only it knows, is left out."""

ONLY_IN_SQL = {
    "add_settlement.sql",
    "check_on_dead_letter.sql",
    "check_on_full.sql",
    "check_attributes.sql",
    "check_payload.sql",
    "create_schedule.sql",
    "create_topic.sql",
    "nack.sql",
    "due_time.sql",
    "fork_subscription.sql",
    "publish.sql",
    "read_ack_ids.sql",
    "reject.sql",
    "require_dead_letter_topic.sql",
    "require_push.sql",
    "require_push_timeout.sql",
    "run_transaction.sql",
    "settle_at_commit.sql",
}


def test_each_bound_of_the_database_is_here() -> None:
    texts = [path.read_text() for path in FUNCTIONS.glob("*.sql") if path.name not in ONLY_IN_SQL]
    raised = re.compile(r"'FP422',\s*message = (?:format\()?'([^']*)'")
    found = {message for text in texts for message in raised.findall(text)}
    assert found == REFUSED_BY_SQL.keys()


async def test_what_can_be_judged_before_the_database_is(
    client: httpx.AsyncClient, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calls.topic_and_subscription()

    async def ask(self: Database, procedure: str, *arguments: Any) -> Any:
        raise AssertionError(f"the database was asked for {procedure}")

    monkeypatch.setattr(Database, "fetch_one", ask)
    more = [
        {"filter": {str(field): [1] for field in range(101)}},
        {"filter": {str(field): [] for field in range(5000)}},
        {"filter": {"a": list(range(10_000))}},
        {"filter": {"a": ["x" * 66_000]}},
    ]
    for text in [*REFUSED_BY_SQL.values(), *map(json.dumps, more)]:
        detail = problem(await client.patch("/subscriptions/s", content=text.encode(), headers=JSON), 422)
        created = json.dumps({"id": "new", "topic_id": "t"} | json.loads(text)).encode()
        if '"a": [2]' not in text:  # a name that comes twice, which Python does not write
            assert problem(await client.post("/subscriptions", content=created, headers=JSON), 422) == detail
    too_low = {"id": "new", "topic_id": "t", "backoff_max_seconds": 1}
    assert "backoff_max" in problem(await client.post("/subscriptions", json=too_low), 422)


class TestManyFields:
    """With more bytes for a filter than it has by default."""

    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(filter_max_bytes=1_048_576)

    async def test_are_counted(self, client: httpx.AsyncClient) -> None:
        filters: list[Any] = [{str(field): [1] for field in range(20_000)}, {"a": [1] * 300_000}, {"a": [[]] * 300_000}]
        for filter_ in filters:
            body = json.dumps({"filter": filter_}, separators=(",", ":")).encode()
            response, seconds = await cost(client, "PATCH", "/subscriptions/s", content=body, headers=JSON)
            assert "100 fields and 1000 values" in problem(response, 422)
            assert seconds < 4 * SECONDS


async def test_ten_errors_are_shown(client: httpx.AsyncClient) -> None:
    body = {str(name): 1 for name in range(15)}
    response = await client.post("/topics", json=body)
    problem(response, 422)
    assert len(response.json()["errors"]) == 10
    assert "21 members" in problem(await client.post("/topics", json={str(name): 1 for name in range(21)}), 422)


# others are answered meanwhile

DEEP = (b"[" * 60 + b"]" * 60 + b",") * 82_000
DENSE = {
    "numbers": b'[{"a":[%b1]}]' % (b"1," * 5_000_000),
    "texts": b'[{"a":[%b1]}]' % (b'"",' * 3_300_000),
    "lists 60 deep": b'[{"a":[%b1]}]' % DEEP,
    "lists 60 deep, and one that is too deep": b'[{"a":[%b1],"b":%b}]' % (DEEP, b"[" * 64 + b"]" * 64),
    "exponents": b'[{"a":[%b1]}]' % (b"1e1000," * 1_400_000),
    "an event": b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":[%b1]}}' % (b"[]," * 3_300_000),
}
TIMES = 8


def reading_once() -> float:
    """Seconds of the processor, on this machine, now, for ten megabytes."""
    body = bytes(10 * MEGABYTE)
    started = time.thread_time()
    body.translate(bytes(range(256))).decode()
    return time.thread_time() - started


async def turns(work: "asyncio.Task[httpx.Response]") -> list[float]:
    """Of the event loop until that is done: seconds of the processor that its thread has used in each."""
    found = []
    while not work.done():
        started = time.thread_time()
        await asyncio.sleep(0)
        found.append(time.thread_time() - started)
    return found


class TestLarge:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings()

    @pytest.mark.parametrize("name", DENSE)
    async def test_others_are_answered_while_a_large_body_is_parsed(
        self, client: httpx.AsyncClient, calls: Calls, name: str
    ) -> None:
        body = DENSE[name]
        assert 9 * MEGABYTE < len(body) <= 10 * 1024 * 1024
        if is_stored := name == "lists 60 deep":
            await calls.topic()
        headers = {"Content-Type": STRUCTURED} if name == "an event" else JSON
        once = reading_once()
        publish = asyncio.create_task(client.post("/topics/t/messages", content=body, headers=headers))
        found = await turns(publish)
        assert publish.result().status_code in ((204,) if is_stored else (404, 422))
        assert len(found) > 20, "the parser lets the event loop run"
        assert max(found) < TIMES * max(once, reading_once()), name


# the same over sockets, to a server in a process of its own

PENDING_SECONDS = 1.0
"""Of the processor of the server, at most, while it owes an answer to `/liveness`; a tenth of it is usual."""


PAUSE_SECONDS = 0.005
"""Between two looks, which would otherwise be most of the work."""


class Alive(threading.Thread):
    """Asks `/liveness` again and again, and notes how long the server worked on other things before it answered."""

    def __init__(self, server: harness.Server) -> None:
        super().__init__()
        self._url = f"{server.base_url}/liveness"
        (self._worker,) = psutil.Process(server.process.pid).children()
        self._ended = threading.Event()
        self.seconds: list[float] = []

    def used(self) -> float:
        return sum(self._worker.cpu_times()[:2])

    def run(self) -> None:
        with httpx.Client(timeout=PATIENCE) as client:
            while not self._ended.wait(PAUSE_SECONDS):
                before = self.used()
                assert client.get(self._url).status_code == 200
                self.seconds.append(self.used() - before)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self.join()


Hostile = tuple[str, str, bytes, dict[str, str]]


def hostile_requests(settings: Settings) -> Iterator[Hostile]:
    """Some to every operation, and a publish of ten megabytes of each filling, whose forms take turns."""
    for route, (limit, content, document) in operations(settings).items():
        good = next(one for one in GOOD if one.route == route)
        if "application/json" in content and limit < MEGABYTE:
            hostile = of_route(route, content["application/json"]["schema"], document, limit)
            for _, body in itertools.islice(hostile, 0, None, 5):
                yield good.method, f"{good.path}?{good.query}", body, JSON
    forms = itertools.cycle([JSON, {"Content-Type": BATCH}, {"Content-Type": STRUCTURED}])
    for name, filling in fillings(settings.api_max_body_bytes - 200):
        if name in LARGE:
            yield "POST", "/topics/t/messages", filling, next(forms)


def hostile_frames(settings: Settings) -> Iterator[str]:
    for kind in ("ack", "nack", "reject", "extend", "x"):
        for _, filling in fillings(bodies.ids(settings) - 100):
            yield f'{{"type":"{kind}","extend_seconds":5,"ids":{filling.decode()}}}'


@pytest.mark.long
@pytest.mark.timeout(900)
def test_liveness_is_answered_meanwhile_by_a_real_server(server: StartServer, make_settings: MakeSettings) -> None:
    started, settings = server(), make_settings()
    for path, made in (("/topics", {"id": "t"}), ("/subscriptions", {"id": "s", "topic_id": "t"})):
        httpx.post(started.base_url + path, json=made).raise_for_status()
    address = f"{started.base_url.replace('http', 'ws')}/subscriptions/s/ws?consumer_id=c"
    with Alive(started) as alive, httpx.Client(base_url=started.base_url, timeout=60) as client:
        for method, path, body, headers in hostile_requests(settings):
            before = alive.used()
            response = client.request(method, path, content=body, headers=headers)
            assert response.status_code < 500, (method, path, response.text)
            used = alive.used() - before
            assert used < SECONDS + SECONDS_PER_MEGABYTE * len(body) / MEGABYTE, (method, path, body[:80], used)
        with connect(address, open_timeout=PATIENCE) as opened:
            for frame in hostile_frames(settings):
                opened.send(frame)
                assert json.loads(opened.recv(PATIENCE))["type"] == "error"
    assert len(alive.seconds) > 100
    assert max(alive.seconds) < PENDING_SECONDS
