"""The real server: processes, signals, sockets."""

import os
import re
import signal
import socket
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from fastpubsub.api import processes
from tests import harness
from tests.attacks import KEY
from tests.conftest import StartServer

SOON = 60.0
LESS_THAN_DEFAULT = 9.0
"""So long is a head waited for unless a setting says otherwise."""

LINE = re.compile(r"asctime=\S+Z level=[A-Z]+ pathname=\S+ line=\d+ message=.+")


def workers(server: harness.Server, count: int = 1) -> list[psutil.Process]:
    """Once so many are there: the first one answers while the others are still being forked."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        children = psutil.Process(server.process.pid).children()
        if len(children) == count and (count == 1 or all(metrics_folders(child) for child in children)):
            return children
    raise AssertionError(f"there were not {count} workers within {SOON} s:\n{server.output()}")


def metrics_folders(worker: psutil.Process) -> set[Path]:
    return {Path(one.path).parent for one in worker.memory_maps() if one.path.endswith(".db")}


def metrics_folder(worker: psutil.Process) -> Path:
    (folder,) = metrics_folders(worker)
    return folder


def messages(server: harness.Server) -> list[str]:
    return [line.partition("message=")[2] for line in server.output().splitlines()]


def raw(server: harness.Server, *parts: bytes, seconds: float = SOON) -> bytes:
    """Everything that the server answers until it closes."""
    host, port = server.base_url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        for part in parts:
            connection.sendall(part)
        while data := connection.recv(65536):
            received += data
    return received


def test_a_request_in_flight_is_finished(server: StartServer, database_url: str) -> None:
    started = server()
    httpx.post(f"{started.base_url}/topics", json={"id": "t"}).raise_for_status()
    with psycopg.connect(harness.libpq(database_url)) as blocker, ThreadPoolExecutor() as pool:
        blocker.execute("select * from fastpubsub.heads for update")
        publishing = pool.submit(httpx.post, f"{started.base_url}/topics/t/messages", json=[{}], timeout=SOON)
        waiting = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
        with psycopg.connect(harness.libpq(database_url), autocommit=True) as observer:
            while observer.execute(waiting).fetchone() != (1,):
                assert not publishing.done()
        os.kill(started.process.pid, signal.SIGTERM)
        while "Handling signal: term" not in messages(started):
            assert started.process.poll() is None
        blocker.rollback()
        assert publishing.result().status_code == 204
    assert started.process.wait(SOON) == 0
    with psycopg.connect(harness.libpq(database_url)) as connection:
        assert connection.execute("select count(*) from fastpubsub.messages").fetchone() == (1,)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stopping_is_prompt_although_clients_stay(server: StartServer, number: signal.Signals) -> None:
    """An hour is what requests in flight would be given."""
    started = server(api_num_workers=2, api_shutdown_grace_seconds=3600)
    with httpx.Client(base_url=started.base_url) as client:
        client.get("/liveness")
        assert started.stop(number) == 0, "within a minute"
    assert "Traceback" not in started.output()


async def test_a_worker_that_is_told_before_it_serves_does_not_begin() -> None:
    """Wherever the signal comes: out of this callback no exception would get."""
    worker = processes.GunicornWorker.__new__(processes.GunicornWorker)
    before = signal.signal(processes.STOP, worker._hear)
    try:
        gone = {1}
        callback = weakref.ref(gone, lambda _: signal.raise_signal(processes.STOP))
        del gone
        assert (callback(), signal.getsignal(processes.STOP)) == (None, signal.SIG_IGN)
        await worker._serve()  # without anything that it would serve
    finally:
        signal.signal(processes.STOP, before)


def test_readiness_turns_first(server: StartServer) -> None:
    started = server(api_shutdown_delay_seconds=8)
    os.kill(started.process.pid, signal.SIGTERM)
    stopping = {"detail": "the server is shutting down"}
    answer = httpx.get(f"{started.base_url}/readiness")
    while answer.json() != stopping:  # a busy machine may find the database down before
        answer = httpx.get(f"{started.base_url}/readiness")
    assert answer.status_code == 503
    assert httpx.get(f"{started.base_url}/topics").status_code == 200
    assert started.process.wait(SOON) == 0


def test_a_killed_worker_is_replaced(server: StartServer) -> None:
    started = server()
    (first,) = workers(started)
    first.kill()
    psutil.wait_procs([first], SOON)
    started.wait_until_ready()
    (second,) = workers(started)
    assert second.pid != first.pid


def test_nothing_outlives_a_master_that_was_killed(server: StartServer) -> None:
    started = server(api_num_workers=2)
    left = workers(started, 2)
    folder = metrics_folder(left[0])
    started.process.kill()
    gone, alive = psutil.wait_procs(left, SOON)
    assert (len(gone), alive) == (2, [])
    started.exit_code = started.process.wait()
    server(api_num_workers=2)
    assert not folder.exists()


def test_metrics_are_the_sum_of_the_workers(server: StartServer) -> None:
    started = server(api_num_workers=2)
    folder = metrics_folder(workers(started, 2)[0])
    # Connections spread over the workers, requests of one connection do not.
    for _ in range(40):
        httpx.get(f"{started.base_url}/topics")
    (folder / "histogram_0.db").touch()  # as of a worker that has made its file and not filled it
    for _ in range(6):
        # The request before may just be ending.
        scrapes = (httpx.get(f"{started.base_url}/metrics").text for _ in range(1000))
        scraped = next(text for text in scrapes if "http_requests_inprogress 1.0\n" in text)
        assert 'http_requests_total{method="GET",path="/topics",status="200"} 40.0\n' in scraped
        assert 'http_request_duration_seconds_count{method="GET",path="/topics"} 40.0\n' in scraped
        assert scraped.count("\nfastpubsub_database_up ") == 1
    assert len(list(folder.glob("counter_*.db"))) == 2
    workers(started, 2)[0].kill()
    while len(messages(started)) == 0 or "was sent SIGKILL" not in started.output():
        assert started.process.poll() is None
    started.wait_until_ready()
    after = httpx.get(f"{started.base_url}/metrics").text
    assert 'http_requests_total{method="GET",path="/topics",status="200"} 40.0\n' in after
    assert started.stop() == 0
    assert not folder.exists()


def test_logs_are_lines_in_the_format_and_tell_no_secret(server: StartServer, database_url: str) -> None:
    secret = "canary-password"
    with_password = re.sub(r"://(\w+)(:[^@]*)?@", rf"://\1:{secret}@", database_url)
    started = server(database_url=with_password, api_num_workers=2, log_level="debug", api_host="0.0.0.0")
    for _ in range(5):
        httpx.get(f"{started.base_url}/topics?token={secret}", headers={"Authorization": f"Bearer {secret}"})
        httpx.post(f"{started.base_url}/topics", json={"id": secret * 20})
    raw(started, b"nonsense\r\n\r\n")
    assert started.stop() == 0
    output = started.output()
    assert all(LINE.fullmatch(line) for line in output.splitlines())
    assert secret not in output
    assert output.count("path=/topics ") == 10
    assert output.count("AUTHENTICATION IS OFF") == 1
    assert output.count("Invalid HTTP request received.") == 1


def test_requests_are_not_logged_when_unwanted(server: StartServer) -> None:
    started = server(log_requests=False)
    httpx.get(f"{started.base_url}/topics")
    assert started.stop() == 0
    assert "path=/topics" not in started.output()


def test_a_server_on_a_database_without_the_schema(empty_database_url: str, tmp_path: Path) -> None:
    started = harness.start_server(["server"], tmp_path, {"database_url": empty_database_url})
    try:
        expected = "the database has no fastpubsub schema; run: fastpubsub db-migrate"
        while f"not ready: {expected}" not in messages(started):
            assert started.process.poll() is None, started.output()
        unready = 503, {"detail": expected}
        found: tuple[int, object] | None = None
        while found != unready:  # it may not serve yet, or a busy machine may find the database down
            with suppress(httpx.TransportError):
                answer = httpx.get(f"{started.base_url}/readiness")
                found = answer.status_code, answer.json()
            assert started.process.poll() is None, started.output()
        publish = httpx.post(f"{started.base_url}/topics/t/messages", json=[{}])
        assert (publish.status_code, publish.headers["retry-after"]) == (503, "1")
        assert "db-migrate" in publish.json()["detail"]
    finally:
        assert started.stop() == 0


def test_the_server_does_not_name_itself(server: StartServer) -> None:
    assert "server" not in httpx.get(f"{server().base_url}/liveness").headers


def test_forwarded_headers_are_believed_only_when_told(server: StartServer) -> None:
    headers = {"X-Forwarded-For": "10.1.2.3", "X-Forwarded-Proto": "https"}
    for settings in ({}, {"api_forwarded_allow_ips": "127.0.0.1"}):
        assert httpx.get(f"{server(**settings).base_url}/liveness", headers=headers).status_code == 200


def test_a_forged_address_does_not_help_to_guess(server: StartServer) -> None:
    settings = {"auth_secret_key": KEY, "auth_max_failures_per_client": 2}
    body = {"client_id": "550e8400-e29b-41d4-a716-446655440000", "client_secret": "wrong"}

    def statuses(**more: object) -> list[int]:
        url = f"{server(**settings, **more).base_url}/oauth/token"
        forged = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(3)]
        return [httpx.post(url, json=body, headers=headers).status_code for headers in forged]

    assert statuses() == [401, 401, 429]
    assert statuses(api_forwarded_allow_ips="192.0.2.77") == [401, 401, 429]
    assert statuses(api_forwarded_allow_ips="127.0.0.1") == [401, 401, 401]


def test_two_requests_on_one_connection(server: StartServer) -> None:
    one = b"GET /liveness HTTP/1.1\r\nHost: localhost\r\n"
    assert raw(server(), one + b"\r\n" + one + b"Connection: close\r\n\r\n").count(b"HTTP/1.1 200 OK") == 2


def test_bounds_on_the_head_of_a_request(server: StartServer) -> None:
    started = server(api_max_header_bytes=4096, api_max_headers=20, api_header_timeout_seconds=2)
    start = b"GET /liveness HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    refused = b"HTTP/1.1 431 "
    assert raw(started, start + b"\r\n").startswith(b"HTTP/1.1 200 ")
    assert raw(started, start, b"X: " + b"a" * 3900 + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert raw(started, start, b"X: " + b"a" * 4100 + b"\r\n\r\n").startswith(refused)
    assert raw(started, b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(refused)
    assert raw(started, start + b"".join(b"X%d: a\r\n" % number for number in range(20)) + b"\r\n").startswith(refused)
    # Without an end: refused as soon as it is too long, closed when it takes too long.
    assert raw(started, start + b"X: " + b"a" * 4100).startswith(refused)
    assert raw(started, start, seconds=LESS_THAN_DEFAULT) == b""
    assert raw(started, seconds=LESS_THAN_DEFAULT) == b""
    # A long body is no long head, and one that follows an earlier request counts from its own start.
    body = b'{"id": "' + b"a" * 9000 + b'"}'
    post = (
        b"POST /topics HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    answered = raw(started, post + body + start + b"\r\n")
    assert answered.startswith(b"HTTP/1.1 422 ")
    assert answered.count(b"HTTP/1.1 200 ") == 1


def test_malformed_requests(server: StartServer) -> None:
    started = server()
    for request in (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nX\x00: y\r\n\r\n",
        b"nonsense\r\n\r\n",
    ):
        assert raw(started, request).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_does_not_arrive(server: StartServer) -> None:
    started = server(api_body_timeout_seconds=2)
    httpx.post(f"{started.base_url}/topics", json={"id": "t"}).raise_for_status()
    post = b"POST /topics/t/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head = post + b"Content-Length: 10\r\n\r\n"
    assert raw(started, head) == b""
    assert raw(started, head, b"[{}") == b""
    chunked = head.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked")
    assert raw(started, chunked + b"3\r\n[{}\r\n") == b""
    whole = post + b"Content-Length: 4\r\n\r\n"
    assert (
        raw(started, whole, b"[", b"{}", b"]", b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").count(b"HTTP/1.1 ") == 2
    )
    assert httpx.get(f"{started.base_url}/liveness").status_code == 200
