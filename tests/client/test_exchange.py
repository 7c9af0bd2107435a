"""Tokens, repetitions and deadlines, without any server: the test says what was answered."""

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from fastpubsub.client import errors, requests
from fastpubsub.client.exchange import Answer, Authorize, Effect, Flow, Lost, Pause, Policy, Send, Tokens, exchange

POLICY = Policy(timeout=60, attempt_timeout=15, backoff=1, max_backoff=8)
LOST = Lost("ReadError", sent=True)
NOT_SENT = Lost("ConnectError", sent=False)


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, b"" if body is None else json.dumps(body).encode())


class Play:
    """Answers a flow in order; Authorize is answered by `token-1`, `token-2`, …"""

    def __init__(self, flow: Flow[Any], *answers: Answer | Lost) -> None:
        self.sent: list[Send] = []
        self.pauses: list[float] = []
        self.refused: list[str | None] = []
        self.result = self._run(flow, list(answers))

    def _run(self, flow: Flow[Any], answers: list[Answer | Lost]) -> Any:
        value: Any = None
        while True:
            try:
                effect: Effect = flow.send(value)
            except StopIteration as end:
                assert not answers
                return end.value
            except errors.BusError as error:
                assert not answers
                return error
            value = self._answer(effect, answers)

    def _answer(self, effect: Effect, answers: list[Answer | Lost]) -> Any:
        if isinstance(effect, Send):
            self.sent.append(effect)
            return answers.pop(0)
        if isinstance(effect, Pause):
            self.pauses.append(effect.seconds)
            return None
        self.refused.append(effect.refused)
        return f"token-{len(self.refused)}"


@pytest.mark.parametrize("trouble", [LOST, NOT_SENT, answer(502), answer(503), answer(504), answer(429)])
def test_a_publish_is_repeated_with_the_same_key_and_body(trouble: Answer | Lost) -> None:
    play = Play(
        exchange(requests.publish("orders", {"order": 1}), POLICY), trouble, trouble, answer(201, {"ids": ["1"]})
    )
    assert play.result == ["1"]
    assert len(play.pauses) == 2
    (key,) = {send.request.headers["Idempotency-Key"] for send in play.sent}
    assert len(key) == 32
    assert [send.request.content for send in play.sent] == [b'[{"order":1}]'] * 3


@pytest.mark.parametrize("trouble", [LOST, answer(502), answer(503), answer(504)])
def test_what_would_be_done_twice_is_not_repeated(trouble: Answer | Lost) -> None:
    for request in (requests.create_client("n", "*"), requests.nack("s", "0" * 36), requests.create_topic("t")):
        assert isinstance(Play(exchange(request, POLICY), trouble).result, errors.BusError)


@pytest.mark.parametrize("trouble", [NOT_SENT, answer(429)])
def test_what_was_not_done_is_repeated(trouble: Answer | Lost) -> None:
    created = {"id": "019c13cb-6d29-7000-8000-040000000001", "secret": "s"}
    play = Play(exchange(requests.create_client("n", "*"), POLICY), trouble, answer(201, created))
    assert play.result.secret == "s"


def test_a_settle_by_ack_id_is_repeated() -> None:
    settled = {"settled": ["a.b"], "gone": [], "stale": []}
    assert Play(exchange(requests.nack("s", "a.b"), POLICY), LOST, answer(200, settled)).result.settled == ["a.b"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.Unauthenticated),
        (403, errors.PermissionDenied),
        (404, errors.NotFound),
        (409, errors.AlreadyExists),
        (413, errors.TooLarge),
        (418, errors.Refused),
        (422, errors.InvalidRequest),
        (500, errors.ServerError),
    ],
)
def test_a_refusal_has_what_the_server_said(status: int, kind: type[errors.Refused]) -> None:
    problem = {"detail": "because", "request_id": "r", "errors": [{"loc": ["body"]}]}
    error = Play(exchange(requests.get_topic("t"), POLICY), answer(status, problem)).result
    assert type(error) is kind
    assert (error.status, error.detail, error.request_id) == (status, "because", "r")
    assert error.errors == [{"loc": ["body"]}]


@pytest.mark.parametrize("content", [b"", b"<html>", b"[1]", b"null", b'{"detail": 1}', b"\xff" * 1000])
def test_a_refusal_by_something_else_is_one_too(content: bytes) -> None:
    error = Play(exchange(requests.get_topic("t"), POLICY), Answer(404, {}, content)).result
    assert isinstance(error, errors.NotFound)
    assert 0 < len(error.detail) <= 200


@pytest.mark.parametrize("answered", [answer(200, {}), answer(200), answer(307), Answer(200, {}, b"<html>")])
def test_an_answer_that_no_server_of_ours_gives(answered: Answer) -> None:
    assert isinstance(Play(exchange(requests.get_topic("t"), POLICY), answered).result, errors.UnexpectedAnswer)


def test_retry_after_is_the_least_wait() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30))
    play = Play(
        exchange(requests.metrics("s"), Policy(backoff=0)),
        answer(503, retry_after="7"),
        answer(429, retry_after=later),
        answer(503, retry_after="nonsense"),
        answer(404),
    )
    assert play.pauses[0] == 7
    assert 15 < play.pauses[1] <= 30
    assert play.pauses[2] == 0


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    play = Play(exchange(requests.metrics("s"), POLICY), answer(503, {"detail": "busy"}, retry_after="60"))
    assert isinstance(play.result, errors.Unavailable)
    assert (play.result.detail, play.result.retry_after) == ("busy", 60)
    assert not play.pauses


def test_attempts_end_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    flow = exchange(requests.metrics("s"), Policy(timeout=1, backoff=0.1, max_backoff=0.1))
    timeouts = []

    def attempt(effect: Effect) -> Effect:
        nonlocal now
        if isinstance(effect, Pause):
            now += effect.seconds
        else:
            assert isinstance(effect, Send)
            timeouts.append(effect.timeout)
            now += 0.05
        return flow.send(LOST)

    effect = next(flow)
    with pytest.raises(errors.ConnectionFailed):  # noqa: PT012
        while True:
            effect = attempt(effect)
    assert len(timeouts) > 1
    assert max(timeouts) <= 1


def test_pauses_are_spread_and_bounded() -> None:
    pauses = [POLICY.pause(attempt, None) for attempt in range(1000)]
    assert 0 <= min(pauses) < 1
    assert max(pauses) <= POLICY.max_backoff
    assert len(set(pauses)) > 900


def test_a_waiting_pull_is_given_its_time() -> None:
    play = Play(exchange(requests.pull("s", wait_seconds=20), POLICY), answer(200, {"data": []}))
    assert play.sent[0].timeout == POLICY.attempt_timeout + 20


def test_a_deletion_that_was_done_the_first_time() -> None:
    assert Play(exchange(requests.delete_topic("t"), POLICY), LOST, answer(404)).result is None
    assert isinstance(Play(exchange(requests.delete_topic("t"), POLICY), answer(404)).result, errors.NotFound)
    play = Play(exchange(requests.delete_topic("t"), POLICY), answer(429), answer(404))
    assert isinstance(play.result, errors.NotFound)


def test_what_exists_already_is_answered() -> None:
    topic = {"id": "t", "created_at": "2026-01-31T12:00:00Z", "retention_seconds": None}
    play = Play(exchange(requests.create_topic("t", exist_ok=True), POLICY), LOST, answer(409), answer(200, topic))
    assert play.result.id == "t"
    assert [send.request.method for send in play.sent] == ["POST", "POST", "GET"]


def test_a_token_that_was_refused_is_renewed_once() -> None:
    tokens = Tokens("id", "secret")
    play = Play(exchange(requests.metrics("s"), POLICY, tokens), answer(401), answer(401, {"detail": "no"}))
    assert isinstance(play.result, errors.Unauthenticated)
    assert play.refused == [None, "token-1"]
    assert [send.token for send in play.sent] == ["token-1", "token-2"]
    assert not play.pauses


def test_a_token_is_kept_until_shortly_before_its_end() -> None:
    tokens = Tokens("id", "secret")
    assert tokens.current(None) is None
    token = {"access_token": "abc", "token_type": "Bearer", "expires_in": 1800, "scope": "*"}
    play = Play(tokens.fetch(POLICY), answer(503), answer(201, token))
    assert play.result == "abc"
    assert json.loads(play.sent[0].request.content or b"") == {"client_id": "id", "client_secret": "secret"}
    assert tokens.current(None) == "abc"
    assert tokens.current("an older one") == "abc"
    assert tokens.current("abc") is None
    Play(tokens.fetch(POLICY), answer(201, token | {"expires_in": 0}))
    assert tokens.current(None) is None


def test_authorize_names_its_tokens() -> None:
    tokens = Tokens("id", "secret")
    effect = next(exchange(requests.metrics("s"), POLICY, tokens))
    assert effect == Authorize(tokens, None)


def test_a_server_that_is_not_up_yet_is_waited_for_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    flow = exchange(requests.get_topic("t"), Policy(backoff=0))
    with caplog.at_level(logging.INFO, "fastpubsub.client"):
        flow.send(None)
        for now in (0.5, 1.9, 2.1, 20.0):  # noqa: B007 - the clock
            assert isinstance(flow.send(NOT_SENT), Pause)
            assert isinstance(flow.send(None), Send)
        with pytest.raises(StopIteration):
            flow.send(answer(200, {"id": "t", "created_at": "2026-01-31T12:00:00Z", "retention_seconds": None}))
    assert caplog.messages == [
        "still waiting for an answer to GET /topics/t, for up to 58 seconds more: ConnectError",
        "the server has answered GET /topics/t",
    ]


def test_every_error_says_what_it_means() -> None:
    """Where an editor shows it: what Python says of the base class helps nobody."""
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.BusError)]
    assert len(classes) == 16
    for one in classes:
        assert (vars(one)["__doc__"] or "").strip().endswith("."), one
    assert all(str(status) in (kind.__doc__ or "") for status, kind in errors.BY_STATUS.items())
