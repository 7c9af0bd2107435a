"""Nothing secret gets out: canaries in every place that takes something, and a look at all that the server wrote."""

import base64
import json
import re
import time
from typing import Any

import httpx
import psycopg
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests import harness
from tests.attacks import sign
from tests.conftest import Run, StartServer

KEY, OLD_KEY = "canary-key-" * 4, "canary-old-key-" * 3
PASSWORD = "canary-password"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def with_password(url: str) -> str:
    return re.sub(r"://(\w+)(:[^@]*)?@", rf"://\1:{PASSWORD}@", url)


class Caller:
    """Keeps what was answered to requests that failed: it must not repeat what was sent either."""

    def __init__(self, base_url: str) -> None:
        self.http = httpx.Client(base_url=base_url, timeout=30)
        self.refusals: list[str] = []

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self.http.request(method, path, **options)
        if response.status_code >= 400:
            self.refusals.append(
                f"{method} {path.partition('?')[0]}: {response.status_code} {response.headers} {response.text}"
            )
        return response


def test_nothing_secret_is_written(
    server: StartServer, run: Run, database_url: str, request: pytest.FixtureRequest
) -> None:
    made = run("create_client", "canaries", "*").stdout
    client_id, secret = re.findall(r"^client_\w+=(.*)$", made, re.MULTILINE)
    started = server(
        database_url=with_password(database_url),
        log_level="debug",
        database_echo=True,
        auth_enabled=True,
        auth_secret_key=KEY,
        auth_verification_keys=OLD_KEY,
        api_max_body_bytes=20_000,
    )
    call = Caller(started.base_url)
    request.addfinalizer(call.http.close)
    tokens = [ask_for_tokens(call, client_id, secret), sign(key=KEY, jti="canary").decode()]
    headers = {"Authorization": f"Bearer {tokens[0]}"}
    secrets = [secret, *change_secrets(call, client_id, headers)]
    tokens.append(call("POST", "/oauth/token", json=credentials(client_id, secrets[-1])).json()["access_token"])
    headers = {"Authorization": f"Bearer {tokens[-1]}"}
    show_tokens(call, tokens)
    open_sockets(started.base_url, tokens)
    send_payloads(call, headers)
    lose_the_database(call, database_url, headers)
    metrics = call("GET", "/metrics").text
    assert started.stop() == 0
    output = started.output()
    assert "level=DEBUG" in output, "it is about the most talkative level"
    assert "fastpubsub.publish_messages" in output, "and about calls that are told"
    assert len(call.refusals) > 30
    for place, text in [("output", output), ("metrics", metrics), *(("refusal", one) for one in call.refusals)]:
        assert "canary" not in text, (place, excerpt(text, "canary"))
        for hidden in [*secrets, *(part for token in tokens for part in token.split(".")[1:])]:
            assert hidden not in text, (place, excerpt(text, hidden))


def excerpt(text: str, found: str) -> str:
    at = text.index(found)
    return text[max(0, at - 300) : at + 100]


def credentials(client_id: str, secret: str) -> dict[str, str]:
    return {"client_id": client_id, "client_secret": secret}


def ask_for_tokens(call: Caller, client_id: str, secret: str) -> str:
    grant = {"grant_type": "client_credentials"}
    token: str = call("POST", "/oauth/token", json=credentials(client_id, secret)).json()["access_token"]
    for wrong in ("canary-secret", f"{secret}canary"):
        call("POST", "/oauth/token", json=credentials(client_id, wrong))
        call("POST", "/oauth/token", data=grant | credentials(client_id, wrong))
        call("POST", "/oauth/token", data=grant, auth=(client_id, wrong))
    call("POST", "/oauth/token", data=grant, headers={"Authorization": f"Basic canary{secret}"})
    call("POST", "/oauth/token", data=grant, params={"client_secret": secret})
    call("POST", "/oauth/token", json={"client_secret": "canary-secret"})
    call("POST", "/oauth/token", json={"client_id": client_id, "client_secret": ["canary-secret"]})
    call("POST", "/oauth/token", content=b'{"client_secret": "canary-secret', headers=JSON)
    call("POST", "/oauth/token", content=b"client_secret=canary-secret&x=%ff", headers=FORM)
    basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    call("GET", "/topics", headers={"Authorization": f"Basic {basic}"})
    return token


def change_secrets(call: Caller, client_id: str, headers: dict[str, str]) -> list[str]:
    path = f"/clients/{client_id}/secrets"
    first = call("POST", path, json={}, headers=headers).json()["secret"]
    call("POST", path, json={}, headers=headers)
    call("POST", path, json={"old_secret_seconds": "canary"}, headers=headers)
    return [first, call("POST", path, json={"old_secret_seconds": 0}, headers=headers).json()["secret"]]


def show_tokens(call: Caller, tokens: list[str]) -> None:
    for token in [*tokens, "canary-token", tokens[0][:-5] + "AAAAA", "canary." * 2000]:
        call("GET", "/topics", headers={"Authorization": f"Bearer {token}"})
        call("GET", "/topics", headers={"Authorization": token})
        call("GET", f"/topics?access_token={token}")
        call("GET", f"/subscriptions/s/stream?consumer_id=c&access_token={token}canary")
        for options in ({"data": {"token": token}}, {"params": {"token": token}}, {"json": {"token": token}}):
            call("POST", "/oauth/introspect", **options)
    call("GET", "/topics", headers=[("Authorization", f"Bearer {tokens[0]}")] * 2)
    call("GET", "/topics", headers={"Cookie": "canary=canary", "X-Api-Key": "canary", "X-Request-ID": "canary canary"})


def open_sockets(base_url: str, tokens: list[str]) -> None:
    url = f"{base_url.replace('http', 'ws')}/subscriptions/s/ws?consumer_id=c"
    for token in [*tokens, "canary-token"]:
        ways: list[tuple[str, dict[str, Any]]] = [
            (url, {"additional_headers": {"Authorization": f"Bearer {token}"}}),
            (url, {"subprotocols": [Subprotocol("bearer"), Subprotocol(token)]}),
            (f"{url}&access_token={token}", {}),
        ]
        for address, options in ways:
            # The subscription is not there.
            with pytest.raises(InvalidStatus), connect(address, **options):
                pass


def send_payloads(call: Caller, headers: dict[str, str]) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    call("POST", "/topics", json={"id": "t"}, headers=headers).raise_for_status()
    call("POST", "/topics", json={"id": "strict", "schema": schema}, headers=headers).raise_for_status()
    subscription = {"id": "s", "topic_id": "t", "backoff_min_seconds": 0, "max_delivery_attempts": 1}
    call("POST", "/subscriptions", json=subscription, headers=headers).raise_for_status()
    filtered = subscription | {"id": "f", "filter": {"a": ["canary-filter"]}}
    call("POST", "/subscriptions", json=filtered, headers=headers).raise_for_status()
    call("POST", "/subscriptions", json=filtered, headers=headers)
    call("POST", "/subscriptions", json=filtered | {"filter": {"a": {"b": "canary"}}}, headers=headers)
    messages = "/topics/t/messages"
    keyed = headers | {"Idempotency-Key": "canary-key"}
    for body in ([{"a": "canary-1"}], [{"a": "canary-2"}]):
        call("POST", messages, json=body, headers=keyed)
    envelope = {"messages": [{"payload": {"a": "canary"}, "attributes": {"a": "canary"}}]}
    call("POST", messages, json=envelope, headers=headers).raise_for_status()
    call("POST", "/topics/strict/messages", json=[{"n": "canary-other"}], headers=headers)
    bad = [
        b'[{"a": "canary\\u0000"}]',
        b'[{"a": "canary", "a": NaN}]',
        b'[{"canary"',
        b'["canary"]',
        b'[{"a": "canary\xff"}]',
    ]
    for content in [*bad, json.dumps([{"a": "canary" * 4000}]).encode()]:
        call("POST", messages, content=content, headers=headers | JSON)
    call("POST", messages, content=b"canary", headers=headers | {"Content-Type": "text/canary"})
    pulled = call("GET", "/subscriptions/s/messages?consumer_id=canary-consumer", headers=headers)
    ids = [one["ack_id"] for one in pulled.json()["data"]]
    assert len(ids) == 2
    assert "canary-1" in pulled.text
    call("POST", "/subscriptions/s/rejects", json={"ids": ids, "reason": "canary-reason"}, headers=headers)
    call("GET", "/subscriptions/s/dlq", headers=headers).raise_for_status()
    call("POST", "/subscriptions/s/acks", json=["canary-id"], headers=headers)
    call("POST", "/subscriptions/s/seek", json={"to": "canary-place"}, headers=headers)


def lose_the_database(call: Caller, database_url: str, headers: dict[str, str]) -> None:
    """Connections that break, and calls that fail in ways that nobody foresaw."""
    with psycopg.connect(harness.libpq(database_url), autocommit=True) as connection:
        end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> %s"
        connection.execute(end, [connection.info.backend_pid])
        call("POST", "/topics/t/messages", json=[{"a": "canary-lost"}], headers=headers)
        connection.execute("alter table fastpubsub.messages add constraint refusing check (payload is null) not valid")
        until_internal_error(call, "/topics/t/messages", [{"a": "canary-refused"}], headers)
        connection.execute(
            "alter table fastpubsub.clients add constraint refusing check (secret_hash is null) not valid"
        )
        until_internal_error(call, "/clients", {"name": "canary-name", "scopes": "topics:read"}, headers)


def until_internal_error(call: Caller, path: str, body: Any, headers: dict[str, str]) -> None:
    """Connections that were ended are noticed one after the other."""
    deadline = time.monotonic() + 30
    while (status := call("POST", path, json=body, headers=headers).status_code) != 500:
        assert status == 503
        assert time.monotonic() < deadline


def test_commands_tell_no_password(run: Run) -> None:
    url = f"postgresql+psycopg://user:{PASSWORD}@127.0.0.1:{harness.free_port()}/nowhere"
    for command in (["db-migrate"], ["create_client", "name"], ["cleanup_stuck_messages"], ["cleanup_acked_messages"]):
        done = run(*command, database_url=url, log_level="debug", database_echo=True)
        assert done.returncode == 1
        assert PASSWORD not in done.stdout + done.stderr
