"""Uploads, and what becomes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from fastpubsub.client import Client
from tests.examples.conftest import Serve
from tests.pages import Shell

WORKER = "exec fastpubsub worker deferred:bus.worker"


def upload(url: str, content: bytes) -> str:
    """Where to ask."""
    answer = httpx.post(f"{url}/uploads", content=content)
    assert (answer.status_code, answer.json()["status"]) == (202, "waiting")
    return url + answer.headers["location"]


def status(place: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(place).raise_for_status().json()
    return answer


def test_it_is_answered_at_once_and_done_later(
    bus: Client, copied: Callable[[str], Shell], serve: Serve, port: int
) -> None:
    shell = copied("deferred")
    serve(shell, "deferred:app", port)
    url = f"http://127.0.0.1:{port}"
    places = [upload(url, text) for text in (b"to be or not to be", b"", b"\xff")]
    assert [status(place)["status"] for place in places] == ["waiting"] * 3
    with shell.start(WORKER) as worker:
        worker.wait_until(lambda: [status(place)["status"] for place in places] == ["done", "done", "failed"])
        worker.wait_until(lambda: bus.metrics("word-counts").dlq == 1)
    assert [status(place).get("words") for place in places] == [{"to": 2, "be": 2, "or": 1}, {}, None]
    assert status(places[2])["reason"] == bus.list_dead_letters("word-counts")[0].reason == "this is not UTF-8 text"


def test_what_may_go_better_is_tried_again(
    bus: Client, copied: Callable[[str], Shell], serve: Serve, port: int
) -> None:
    shell = copied("deferred")
    serve(shell, "deferred:app", port)
    place = upload(f"http://127.0.0.1:{port}", b"word")
    text = Path(shell.folder, "uploads", f"{place.rpartition('/')[2]}.txt")
    away = text.rename(text.with_suffix(".away"))
    with shell.start(WORKER) as worker:
        worker.wait_until(lambda: str(status(place).get("reason")).startswith("attempt 1 of 3: "))
        away.rename(text)
        worker.wait_until(lambda: status(place)["status"] == "done")
    assert status(place) == {"status": "done", "attempts": 2, "words": {"word": 1}}


def test_what_nobody_should_send(copied: Callable[[str], Shell], serve: Serve, port: int) -> None:
    app = serve(copied("deferred"), "deferred:app", port)
    url = f"http://127.0.0.1:{port}/uploads"
    assert httpx.get(f"{url}/{uuid4()}").status_code == 404
    assert httpx.get(f"{url}/..%2F..%2Fetc%2Fpasswd").status_code in (404, 422)
    assert httpx.post(url, content=b"x" * 10_000_001).status_code == 413
    assert "Traceback" not in app.output()
