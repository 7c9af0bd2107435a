"""Push from the command line: options, files of a topology, and secrets, which appear where they have to."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastpubsub.client import Client
from tests.cli.conftest import Cli, Done, until
from tests.cli.test_listen import serving
from tests.conftest import StartServer

URL = "https://localhost:8443/hook"


@pytest.fixture
def pushing(server: StartServer, bus: Client, cli: Cli) -> Cli:
    """Asks a server with a key for secrets, which itself pushes nothing."""
    url = server(push_secret_key="k" * 32, push_enabled=False, push_allow_networks="127.0.0.0/8,::1/128").base_url

    def run(*arguments: str) -> Done:
        return cli(*arguments, url=url)

    return run


def push_of(pushing: Cli, subscription: str = "billing") -> Any:
    return json.loads(pushing("subscriptions", "show", subscription).stdout).get("push")


def test_created_changed_shown_and_ended(pushing: Cli, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("Bearer of-a-file\n")
    options = ["--push-endpoint", URL, "--push-format", "pubsub", "--push-timeout-seconds", "2.5"]
    options += ["--push-signature", "ed25519"]
    options += ["--push-max-concurrency", "7", "--push-reject-on", "400", "--push-reject-on", "422"]
    options += ["--push-header", "Authorization=@token", "--push-header", "X-Plain=a=b"]
    created = pushing("subscriptions", "create", "hooks", "orders", *options)
    assert created.returncode == 0, created.stderr
    shown = json.loads(created.stdout)["push"]
    secret = shown.pop("secret")
    assert secret.startswith("whpk_")
    assert (
        shown
        == push_of(pushing, "hooks")
        == {
            "endpoint": URL,
            "format": "pubsub",
            "signature": "ed25519",
            "header_names": ["Authorization", "X-Plain"],
            "timeout_seconds": 2.5,
            "max_concurrency": 7,
            "reject_on": [400, 422],
        }
    )
    assert pushing("subscriptions", "update", "hooks", "--push-endpoint", URL + "/2").returncode == 0
    changed = push_of(pushing, "hooks")
    assert (changed["endpoint"], changed["format"], changed["header_names"]) == (URL + "/2", "standard", [])
    rotated = pushing("subscriptions", "rotate-push-secret", "hooks", "--old-secret-seconds", "60")
    another = json.loads(rotated.stdout)
    assert another["secret"].startswith("whsec_")
    assert (another["secret"] != secret, "not shown again" in rotated.stderr) == (True, True)
    assert another["old_secret_expires_at"] is not None
    assert pushing("subscriptions", "update", "hooks", "--push-endpoint", "null").returncode == 0
    assert push_of(pushing, "hooks") is None


def test_requests_by_hand(server: StartServer, bus: Client, cli: Cli) -> None:
    networks = {"push_allow_networks": "127.0.0.0/8,::1/128", "push_allow_ports": "*", "push_allow_http": True}
    url = server(push_secret_key="k" * 32, push_enabled=False, **networks).base_url
    with serving() as hook:
        (message_id,) = bus.publish("orders", {"n": 1})
        update = cli("subscriptions", "update", "billing", "--push-endpoint", hook.url, url=url)
        assert update.returncode == 0, update.stderr
        tested = cli("subscriptions", "test-push", "billing", "--payload", '{"n": 1.10}', url=url)
        assert (tested.returncode, tested.stderr) == (0, "")
        shown = json.loads(tested.stdout)
        assert (shown["status"], shown["said"], shown["message_id"][:5]) == (200, "done", "test-")
        assert json.loads(cli("subscriptions", "resend", "billing", message_id, url=url).stdout)["status"] == 200
        hook.answer = lambda _: (422, {}, b"no such order")
        refused = cli("subscriptions", "test-push", "billing", url=url)
        assert (refused.returncode, json.loads(refused.stdout)["status"]) == (1, 422)
        assert "the endpoint did not accept it: no such order" in refused.stderr
        first, second, third = hook.received
        assert (first.body, second.body) == (b'{"n": 1.10}', b'{"n":1}')
        assert json.loads(third.body)["type"] == "fastpubsub.test"
        assert [one.headers["webhook-id"] for one in (first, second)] == [shown["message_id"], message_id]
    gone = cli("subscriptions", "test-push", "billing", url=url)
    assert (gone.returncode, json.loads(gone.stdout)["status"], "no connection" in gone.stderr) == (1, None, True)
    wrong = cli("subscriptions", "test-push", "billing", "--payload", "{", url=url)
    assert (wrong.returncode, wrong.stdout, "--payload" in wrong.stderr) == (2, "", True)


def test_what_became_of_pushes(server: StartServer, bus: Client, cli: Cli) -> None:
    networks = {"push_allow_networks": "127.0.0.0/8,::1/128", "push_allow_ports": "*", "push_allow_http": True}
    url = server(push_secret_key="k" * 32, **networks).base_url

    def attempts(*arguments: str) -> list[Any]:
        done = cli("subscriptions", "push-attempts", "billing", *arguments, url=url)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    assert attempts() == []
    with serving() as hook:
        hook.answer = lambda one: (400 if b"1" in one.body else 200, {}, b"no\x1b[31m")
        endpoint = ["--push-endpoint", hook.url, "--push-reject-on", "400"]
        assert cli("subscriptions", "update", "billing", *endpoint, url=url).returncode == 0
        ids = bus.publish("orders", *({"n": number} for number in range(3)))
        until(lambda: len(attempts()) == len(ids))
    by_id = {one["message_id"]: one for one in attempts()}
    assert [by_id[id_]["outcome"] for id_ in ids] == ["ack", "reject", "ack"]
    assert attempts("--message", ids[1]) == [by_id[ids[1]]]
    assert attempts("--limit", "2") == attempts()[:2]
    table = cli("subscriptions", "push-attempts", "billing", "--table", url=url).stdout
    assert table.splitlines()[0].split() == ["AT", "MESSAGE_ID", "ATTEMPT", "OUTCOME", "STATUS", "MS", "SAID"]
    assert "\x1b" not in table
    wrong = cli("subscriptions", "push-attempts", "billing", "--message", "nonsense", url=url)
    assert (wrong.returncode, "message_id" in wrong.stderr) == (1, True)


def test_a_secret_header_reaches_the_server(pushing: Cli, tmp_path: Path) -> None:
    """It judges values, so a wrong one shows that it has them."""
    (tmp_path / "token").write_text("two\nlines\n")
    done = pushing("subscriptions", "update", "billing", "--push-endpoint", URL, "--push-header", "A=@token")
    assert (done.returncode, "the value of header 1 is not" in done.stderr) == (1, True), done.stderr
    assert "lines" not in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--push-format", "pubsub"], "give --push-endpoint, too"),
        (["--push-timeout-seconds", "0"], "give --push-endpoint, too"),
        (["--push-endpoint", "null", "--push-format", "pubsub"], "leave out its other options"),
        (["--push-endpoint", URL, "--push-header", "Authorization"], "NAME=VALUE or NAME=@FILE"),
        (["--push-endpoint", URL, "--push-header", "=x"], "NAME=VALUE or NAME=@FILE"),
        (["--push-endpoint", URL, "--push-header", "A=@nowhere"], "nowhere: No such file"),
        (["--push-endpoint", URL, "--push-header", "A=@."], "--push-header: .: Is a directory"),
        (["--push-endpoint", URL, "--push-header", "A=@bytes"], "bytes is not text"),
        (["--push-endpoint", URL, "--push-format", "xml"], "--push-format"),
    ],
)
def test_usage(cli: Cli, tmp_path: Path, options: list[str], said: str) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    done = cli("subscriptions", "update", "billing", *options)
    assert (done.returncode, done.stdout, said in done.stderr) == (2, "", True), done.stderr


def test_what_exists_cannot_be_compared(cli: Cli) -> None:
    done = cli("subscriptions", "create", "billing", "orders", "--exist-ok", "--push-endpoint", URL)
    assert (done.returncode, "either push or --exist-ok" in done.stderr) == (2, True)


def test_exported_and_applied_without_secrets(pushing: Cli, tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(
        f"subscriptions: {{hooks: {{topic_id: orders, push: {{endpoint: '{URL}', timeout_seconds: 2.50}}}}}}"
    )
    made = pushing("apply", "-f", "t.yaml")
    assert (made.returncode, "push secret=whsec_" in made.stderr, "whsec_" in made.stdout) == (0, True, False)
    assert pushing("apply", "-f", "t.yaml").stderr == "nothing to change\n"
    exported = pushing("export")
    assert ("whsec_" in exported.stdout, "header" in exported.stdout, exported.stderr) == (False, False, "")
    file.write_text(exported.stdout)
    assert pushing("apply", "-f", "t.yaml").stderr == "nothing to change\n"
    file.write_text("subscriptions: {hooks: {topic_id: orders, push: {max_concurrency: 3}}}")
    changed = json.loads(pushing("apply", "-f", "t.yaml").stdout)["changes"]
    assert '"max_concurrency": 10' in changed.partition("→")[0]
    present = push_of(pushing, "hooks")
    assert (present["max_concurrency"], present["timeout_seconds"], present["endpoint"]) == (3, 2.5, URL)
    file.write_text("subscriptions: {hooks: {topic_id: orders, push: null}}")
    assert pushing("apply", "-f", "t.yaml").returncode == 0
    assert push_of(pushing, "hooks") is None
    assert pushing("apply", "-f", "t.yaml").stderr == "nothing to change\n"
    file.write_text("subscriptions: {hooks: {topic_id: orders, push: {headers: {A: b}}}}")
    refused = pushing("apply", "-f", "t.yaml")
    assert (refused.returncode, "push: 'headers' is unknown" in refused.stderr) == (2, True)


def test_applying_loses_no_headers(pushing: Cli, tmp_path: Path) -> None:
    header = ["--push-header", "Authorization=Bearer x"]
    assert pushing("subscriptions", "update", "billing", "--push-endpoint", URL, *header).returncode == 0
    exported = pushing("export")
    assert ("Bearer" in exported.stdout, "the headers of push of billing" in exported.stderr) == (False, True)
    file = tmp_path / "t.yaml"
    file.write_text(exported.stdout)
    assert pushing("apply", "-f", "t.yaml").stderr == "nothing to change\n"
    for push in ("{max_concurrency: 3}", "null"):
        file.write_text(f"subscriptions: {{billing: {{topic_id: orders, push: {push}}}}}")
        refused = pushing("apply", "-f", "t.yaml")
        assert (refused.returncode, "whose values nobody can read" in refused.stderr) == (2, True)
    assert push_of(pushing)["header_names"] == ["Authorization"]
