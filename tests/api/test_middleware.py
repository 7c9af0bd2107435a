import asyncio
import itertools
import logging
import re

import httpx
import pytest

from fastpubsub.api.request_log import RequestLog
from tests.api.conftest import app_of
from tests.api.good import GOOD
from tests.together import together


async def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Those of the requests that ended: they are written in the next turn of the event loop."""
    await asyncio.sleep(0)
    records = [record for record in caplog.records if record.name == "fastpubsub.requests"]
    return [line for record in records for line in record.message.split("\n")]


@together("request_id", ["a", "A.b_c-9", "x" * 128])
async def test_a_good_request_id_is_taken(client: httpx.AsyncClient, request_id: str) -> None:
    response = await client.get("/nope", headers={"X-Request-ID": request_id})
    assert response.headers["x-request-id"] == request_id
    assert response.json()["request_id"] == request_id


@together("request_id", ["", "x" * 129, "a b", "a/b", "é", "<script>", "a;b"])
async def test_any_other_is_replaced(client: httpx.AsyncClient, request_id: str) -> None:
    response = await client.get("/liveness", headers=[(b"x-request-id", request_id.encode())])
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


async def test_request_ids_differ(client: httpx.AsyncClient) -> None:
    assert len({(await client.get("/liveness")).headers["x-request-id"] for _ in range(20)}) == 20


async def test_headers_of_every_answer(client: httpx.AsyncClient) -> None:
    """Of every route, whatever it answers, of what no route answers, and of what is refused before."""
    nothing: dict[str, str] = {}
    requests = [(good.method, good.path, good.body, nothing) for good in GOOD if not good.path.endswith("/stream")]
    requests += [
        ("GET", "/nope", None, nothing),
        ("PUT", "/topics", None, nothing),
        ("GET", "/topics?a=%00", None, nothing),
    ]
    requests += [("POST", "/topics", None, {"Content-Encoding": "gzip"})]
    for method, path, body, headers in requests:
        answered = (await client.request(method, path, json=body, headers=headers)).headers
        assert answered.get_list("x-content-type-options") == ["nosniff"], path
        assert len(answered.get_list("cache-control")) == 1, path
        (policy,) = answered.get_list("content-security-policy")
        assert policy.startswith("default-src 'none'"), path
        if path not in ("/console", "/docs", "/redoc"):
            assert "script-src" not in policy, path


async def test_nothing_is_kept_unless_it_may_be(client: httpx.AsyncClient) -> None:
    for path in ("/liveness", "/topics", "/topics/nope", "/nope", "/openapi.json", "/metrics", "/docs"):
        assert (await client.get(path)).headers["cache-control"] == "no-store"


async def test_an_answer_may_say_how_long_it_holds(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs/static/favicon-32x32.png")
    assert response.headers["cache-control"] == "public, max-age=86400"


@together("encoding", ["gzip", "br", "deflate", "zstd", "gzip, identity", "x"])
async def test_compressed_bodies_are_refused(client: httpx.AsyncClient, encoding: str) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    response = await client.post("/topics", content=b"\x1f\x8b", headers=headers)
    assert response.status_code == 415
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("encoding", ["identity", "Identity", " identity ", ""])
async def test_bodies_as_they_are_need_no_encoding(client: httpx.AsyncClient, encoding: str) -> None:
    headers = {"Content-Encoding": encoding}
    assert (await client.post("/topics", json={"id": "t"}, headers=headers)).status_code == 201


METHODS = ["GET", "POST", "DELETE", "PATCH", "PUT", "OPTIONS"]
PATHS = [
    "/topics/%00",
    "/topics/a%00b/messages",
    "/%00",
    "/topics/%ff%fe",
    "/topics/%ed%a0%80",
    "/topics/..%2f..",
    "/topics?limit=%00",
    "/subscriptions/s/messages?consumer_id=%00",
    "/topics/%f0%9f%98%80",
    "/subscriptions/%0d%0a/messages?consumer_id=x",
]


@together("method, path", itertools.product(METHODS, PATHS))
async def test_no_path_is_an_internal_error(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)
    assert 400 <= response.status_code < 500


async def test_one_line_for_a_request(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    response = await client.post("/topics", json={"id": "canary-topic"}, headers={"Authorization": "Bearer canary"})
    (line,) = await lines(caplog)
    request_id = response.headers["x-request-id"]
    assert re.fullmatch(
        rf"method=POST path=/topics status=201 duration_ms=\d+\.\d{{3}} request_id={request_id} client_id=anonymous",
        line,
    )
    assert "canary" not in "".join(await lines(caplog))


async def test_templates_and_not_values_are_logged(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await client.get("/subscriptions/canary/messages?consumer_id=canary&access_token=canary")
    await client.get("/topics/canary?limit=canary")
    await client.post("/topics/canary/messages", json=[{"canary": "canary"}])
    await client.delete("/topics/canary/messages")
    assert [re.findall("path=([^ ]+)", line)[0] for line in await lines(caplog)] == [
        "/subscriptions/{subscription_id}/messages",
        "/topics/{topic_id}",
        "/topics/{topic_id}/messages",
        "/topics/{topic_id}/messages",
    ]
    assert "canary" not in "".join(await lines(caplog))


async def test_unknown_paths_are_logged_quoted_and_cut(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await client.get("/a%0d%0ab%20c%ff/" + "x" * 5000)
    (line,) = await lines(caplog)
    assert "path=/a%0D%0Ab%20c%EF%BF%BD/xxx" in line
    assert len(line) < 500


async def test_requests_that_end_together_are_one_record(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastpubsub.requests")
    log = RequestLog()
    scope = {"method": "GET", "path": "/x", "state": {"request_id": "i"}}
    for status in range(200, 250):
        log.add(logging.INFO, scope, "/x", status, 0.001)
    log.add(logging.WARNING, scope, "/x", 503, 0.001)
    told = [line for record in caplog.records for line in re.findall(r"status=(\d+)", record.message)]
    assert 1 < len(caplog.records) < 10, "no record is longer than a pipe takes in one piece"
    assert max(len(record.message) for record in caplog.records) < 2500
    assert told == [*map(str, range(200, 250)), "503"], "nothing is late, nothing out of order"
    log.add(logging.INFO, scope, "/x", 299, 0.001)
    assert "status=299" not in caplog.text
    assert "status=299" in (await lines(caplog))[-1]


@pytest.mark.parametrize("path", ["/liveness", "/readiness", "/metrics"])
async def test_probes_are_logged_for_debugging_only(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level(logging.DEBUG)
    await client.get(path)
    (record,) = [one for one in caplog.records if one.name == "fastpubsub.requests"]
    assert record.levelno == logging.DEBUG


async def test_every_route_is_known_by_its_template(client: httpx.AsyncClient) -> None:
    paths = set(app_of(client).openapi()["paths"])
    for path in paths:
        assert (await client.request("TRACE", path.replace("{", "x").replace("}", "x"))).status_code == 405
    scraped = (await client.get("/metrics")).text
    assert set(re.findall(r'http_requests_total{method="TRACE",path="([^"]+)",status="405"}', scraped)) == paths
