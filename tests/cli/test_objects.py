"""Topics, subscriptions, clients and dead letters."""

import json
import re
import time
from typing import Any

from fastpubsub.client import Client
from tests.cli.conftest import Cli
from tests.conftest import Run, StartServer


def printed(cli: Cli, *arguments: str) -> list[Any]:
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_topics(cli: Cli, bus: Client) -> None:
    (created,) = printed(
        cli, "topics", "create", "audit", "--retention-seconds", "60", "--schema", '{"type": "object"}'
    )
    assert (created["id"], created["retention_seconds"], created["schema"]) == ("audit", 60, {"type": "object"})
    assert printed(cli, "topics", "create", "audit", "--exist-ok") == [created]
    again = cli("topics", "create", "audit")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == 'fastpubsub: topic "audit" already exists\n'
    (changed,) = printed(cli, "topics", "update", "audit", "--retention-seconds", "null")
    assert changed == created | {"retention_seconds": None}
    assert printed(cli, "topics", "show", "audit") == [changed]
    assert [one["id"] for one in printed(cli, "topics", "list")] == ["audit", "orders"]
    deleted = cli("topics", "delete", "audit", "orders", "--yes")
    assert (deleted.returncode, deleted.stdout) == (0, "")
    assert deleted.stderr == "deleted topic audit\ndeleted topic orders\n"
    assert bus.list_topics() == []
    assert cli("topics", "delete", "audit", "-y").stderr == 'fastpubsub: topic "audit" does not exist\n'


def test_explaining(cli: Cli, bus: Client) -> None:
    bus.create_subscription("b-filtered", "orders", filter={"Country": ["BR"]})
    (id_,) = bus.publish("orders", {"country": "BR"})
    first, second = printed(cli, "explain", id_)
    assert (first["subscription_id"], first["state"], first["similar_field"]) == ("b-filtered", "filtered", "country")
    assert (second["subscription_id"], second["state"]) == ("billing", "ahead")
    assert printed(cli, "explain", id_, "b-filtered") == [first]
    table = cli("explain", id_, "b-filtered", "--table").stdout
    assert table.splitlines()[0].split() == ["SUBSCRIPTION", "STATE", "DETAIL"]
    wrong = cli("explain", "nonsense")
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "fastpubsub: a message id is a UUID, from the answer of a pull or a publish\n",
    )


def test_lists_are_whole(cli: Cli, bus: Client) -> None:
    for n in range(120):
        bus.create_topic(f"t{n:03}")
    ids = [one["id"] for one in printed(cli, "topics", "list")]
    assert ids == ["orders", *(f"t{n:03}" for n in range(120))]
    part = printed(cli, "topics", "list", "--offset", "1", "--limit", "105")
    assert [one["id"] for one in part] == ids[1:106]


def test_subscriptions(cli: Cli, bus: Client) -> None:
    name = ("subscriptions", "create", "audit", "orders")
    (created,) = printed(
        cli, *name, "--filter", '{"a": [1, "b"]}', "--max-delivery-attempts", "3", "--backoff-max-seconds", "7"
    )
    assert (created["topic_id"], created["filter"]) == ("orders", {"a": [1, "b"]})
    assert (created["max_delivery_attempts"], created["backoff_max_seconds"]) == (3, 7)
    (changed,) = printed(cli, "subscriptions", "update", "audit", "--filter", "null", "--ack-deadline-seconds", "9")
    assert changed == created | {"filter": None, "ack_deadline_seconds": 9}
    assert printed(cli, "subscriptions", "show", "audit") == [changed]
    (paused,) = printed(cli, "subscriptions", "pause", "audit")
    assert (paused.pop("is_paused"), paused.pop("paused_at")[-1], paused) == (True, "Z", changed)
    assert printed(cli, "subscriptions", "resume", "audit") == [changed]
    assert [one["id"] for one in printed(cli, "subscriptions", "list")] == ["audit", "billing"]
    assert [one["id"] for one in printed(cli, "subscriptions", "list", "--topic", "orders")] == ["audit", "billing"]
    assert printed(cli, "subscriptions", "list", "--topic", "others") == []
    bus.publish("orders", {"n": 1})
    assert printed(cli, "subscriptions", "metrics", "audit")[0]["available"] == 1
    assert cli("subscriptions", "seek", "audit", "latest").returncode == 0
    assert bus.metrics("audit").available == 0
    assert cli("subscriptions", "delete", "audit", "--yes").returncode == 0
    assert [one.id for one in bus.list_subscriptions()] == ["billing"]


def test_what_is_there_already_and_differs(cli: Cli, bus: Client) -> None:
    topic = cli("topics", "create", "orders", "--exist-ok", "--schema", '{"type": "object"}')
    assert (topic.returncode, topic.stdout) == (1, "")
    wanted = 'topic "orders" already exists and differs: schema is null, not {"type": "object"}'
    assert topic.stderr == f"fastpubsub: {wanted}\n"
    settings = ["--ack-deadline-seconds", "90", "--filter", '{"total": [1.50]}']
    refused = cli("subscriptions", "create", "billing", "orders", "--exist-ok", *settings)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "differs: filter is null, not " in refused.stderr
    changed = cli("subscriptions", "apply", "billing", "orders", *settings)
    assert changed.returncode == 0
    assert changed.stderr.startswith('subscription "billing" changes: filter from null to {"total": [1.5]}, ack_deadl')
    assert json.loads(changed.stdout)["ack_deadline_seconds"] == 90
    again = cli("subscriptions", "apply", "billing", "orders", *settings)
    assert (again.returncode, again.stdout, again.stderr) == (0, changed.stdout, "")
    bus.create_topic("others")
    other = cli("subscriptions", "apply", "billing", "others")
    assert (other.returncode, other.stdout) == (1, "")
    assert 'topic_id is "orders", not "others"' in other.stderr
    assert printed(cli, "subscriptions", "apply", "new", "others", "--start-from", "earliest")[0]["id"] == "new"
    (fork,) = printed(cli, "subscriptions", "create", "fork", "orders", "--fork-of", "billing", "--filter", "null")
    assert (fork["filter"], fork["ack_deadline_seconds"]) == (None, 90)
    assert printed(cli, "subscriptions", "apply", "fork", "orders", "--fork-of", "billing") == [fork]


def test_what_the_server_refuses(cli: Cli) -> None:
    for arguments in (
        ["topics", "create", "not an id"],
        ["topics", "create", "日本"],
        ["topics", "show", "../clients"],
        ["topics", "update", "orders"],
        ["topics", "create", "t", "--schema", '{"type": 1}'],
        ["subscriptions", "create", "s", "nope"],
        ["subscriptions", "create", "s", "orders", "--start-from", "yesterday"],
        ["subscriptions", "create", "s", "orders", "--fork-of", "nobody"],
        ["subscriptions", "create", "s", "orders", "--fork-of", "billing", "--start-from", "latest"],
        ["subscriptions", "create", "s", "orders", "--filter", "[]"],
        ["clients", "create", "name", "topics:fly"],
        ["dlq", "purge", "billing", "x", "--yes"],
    ):
        done = cli(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert done.stderr.startswith("fastpubsub: ")
        assert (len(done.stderr.splitlines()), "Traceback" in done.stderr) == (1, False), done.stderr


def test_wrong_usage(cli: Cli) -> None:
    for arguments in (
        ["topics", "create", ".."],
        ["topics", "create", "\udcff"],
        ["topics", "create", "t", "--retention-seconds", "-1"],
        ["topics", "create", "t", "--schema", "{"],
        ["subscriptions", "update", "billing"],
        ["clients", "update", "nobody"],
        ["dlq", "reprocess", "billing"],
        ["dlq", "purge", "billing", "x", "--all"],
        ["topics", "nonsense"],
    ):
        done = cli(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith("Usage: ")
        assert "Traceback" not in done.stderr


def die(bus: Client, count: int) -> list[str]:
    bus.publish("orders", *({"n": n} for n in range(count)))
    letters = []
    while messages := bus.pull("billing", batch_size=100):
        bus.reject("billing", messages, reason="nobody wants it")
        letters += [str(message.id) for message in messages]
    return letters


def test_dead_letters(cli: Cli, bus: Client) -> None:
    ids = die(bus, 230)
    assert [one["id"] for one in printed(cli, "dlq", "list", "billing")] == ids
    assert printed(cli, "dlq", "list", "billing", "--limit", "1")[0]["reason"] == "nobody wants it"
    some = cli("dlq", "reprocess", "billing", ids[0], ids[1])
    assert (some.returncode, some.stderr) == (0, "gave 2 dead letters of billing to its consumers again\n")
    gone = cli("dlq", "purge", "billing", ids[0], ids[2], "--yes")
    assert (gone.returncode, bus.metrics("billing").dlq) == (1, 227)
    assert gone.stderr == f"fastpubsub: 1 of 2; not dead letters: {ids[0]}\n"
    assert cli("dlq", "reprocess", "billing", "--all").stderr.startswith("gave 227 dead letters")
    assert bus.metrics("billing").available == 229
    die(bus, 0)
    assert cli("dlq", "purge", "billing", "--all", "--yes").stderr == "deleted 229 dead letters of billing\n"
    assert bus.metrics("billing").dlq == 0
    assert cli("dlq", "purge", "billing", "--all", "--yes").returncode == 0


def test_clients(server: StartServer, cli: Cli, run: Run) -> None:
    """With authentication: the secret is printed once, and works."""
    guarded = server(auth_enabled=True, auth_secret_key="k" * 32).base_url
    first = dict(line.split("=") for line in run("create_client", "admin").stdout.splitlines())

    def ask(*arguments: str, **settings: object) -> Any:
        return cli(*arguments, **{"url": guarded, **first, **settings})

    created = json.loads(ask("clients", "create", "reader", "topics:read").stdout)
    reader = {"client_id": created["id"], "client_secret": created["secret"]}
    shown = ask("clients", "create", "other", "topics:read", "--inactive", "--table")
    assert re.fullmatch(r"client_id=\S{36}\nclient_secret=fps_\S+\n", shown.stdout)
    assert shown.stderr == "save the secret now: it is not shown again\n"
    assert json.loads(ask("topics", "list", **reader).stdout)["id"] == "orders"
    refused = ask("publish", "orders", "{}", **reader)
    assert refused.returncode == 1
    assert "topics:publish" in refused.stderr
    assert ask("tail", "nope").stderr == 'fastpubsub: topic "nope" does not exist\n'
    changed = json.loads(ask("clients", "update", created["id"], "--scopes", "*").stdout)
    assert (changed["name"], changed["scopes"], changed["is_active"]) == ("reader", "*", True)
    listed = ask("clients", "list")
    assert {json.loads(line)["name"] for line in listed.stdout.splitlines()} == {"admin", "reader", "other"}
    assert created["secret"] not in listed.stdout + ask("clients", "show", created["id"]).stdout
    rotated = ask("clients", "rotate-secret", created["id"], "--table")
    (new,) = re.findall(rf"client_id={created['id']}\nclient_secret=(fps_\S+)\n", rotated.stdout)
    newer = reader | {"client_secret": new}
    assert [ask("topics", "list", **one).returncode for one in (reader, newer)] == [0, 0]
    twice = ask("clients", "rotate-secret", created["id"])
    assert (twice.returncode, "already has two secrets" in twice.stderr) == (1, True)
    assert (
        ask("clients", "revoke-secret", created["id"], "old", "--yes").stderr
        == f"ended the old secret of {created['id']}\n"
    )
    assert [ask("topics", "list", **one).returncode for one in (reader, newer)] == [1, 0]
    stolen = json.loads(ask("clients", "rotate-secret", created["id"], "--old-secret-seconds", "0").stdout)
    assert stolen["old_secret_expires_at"] is None
    newest = reader | {"client_secret": stolen["secret"]}
    assert [ask("topics", "list", **one).returncode for one in (newer, newest)] == [1, 0]
    assert ask("clients", "revoke-secret", created["id"], "both").returncode == 2
    assert ask("clients", "delete", created["id"], "--yes").returncode == 0
    for nobody in (reader, {"client_id": None, "client_secret": None}):
        done = ask("topics", "list", **nobody)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "FASTPUBSUB_CLIENT_ID" in done.stderr
        assert created["secret"] not in done.stderr


def test_wrong_settings(cli: Cli) -> None:
    for settings in ({"url": "localhost:8000"}, {"url": "ftp://localhost"}, {"client_id": "a"}, {"client_secret": "a"}):
        done = cli("topics", "list", **settings)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
        assert done.stderr.startswith("fastpubsub: ")


def test_something_else_at_the_address(cli: Cli, server: StartServer) -> None:
    done = cli("topics", "list", url=f"{server().base_url}/docs?")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_a_refusal_is_a_sentence(cli: Cli) -> None:
    refused = cli("subscriptions", "create", "new", "orders", "--filter", '{"country": "BR"}')
    assert refused.stderr.startswith('fastpubsub: --filter: the filter of the field "country" must be a list')


def test_refused_messages(cli: Cli, bus: Client) -> None:
    bus.create_topic("failed")
    bus.update_subscription("billing", dead_letter_topic="failed")
    bus.update_topic("failed", schema={"properties": {"n": {"maximum": 1}}})
    bus.publish("orders", *({"n": n} for n in range(2, 6)))
    bus.reject("billing", bus.pull("billing"), reason="no")
    deadline = time.monotonic() + 60
    while len(found := bus.list_refused("failed").data) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    ids = [one.id for one in found]
    listed = [json.loads(line) for line in cli("refused", "list", "failed", "--json").stdout.splitlines()]
    assert [(one["id"], one["payload"]) for one in listed] == [(id_, {"n": n}) for n, id_ in enumerate(ids, 2)]
    for wrong in ([], ["--all", ids[0]]):
        assert cli("refused", "publish", "failed", *wrong).returncode == 2
    none = cli("refused", "publish", "failed", ids[0])
    assert (none.returncode, "1 of 1 are gone or do not match the schema" in none.stderr) == (1, True)
    bus.update_topic("failed", schema={"properties": {"n": {"maximum": 3}}})
    some = cli("refused", "publish", "failed", "--all")
    assert (some.returncode, "published 2 refused messages of failed" in some.stderr) == (1, True)
    assert "2 of 4 are gone or do not match" in some.stderr
    assert cli("refused", "purge", "failed", ids[2], "--yes").stderr == "deleted 1 refused message of failed\n"
    bus.update_topic("failed", schema=None)
    assert cli("refused", "publish", "failed", "--all").stderr == "published 1 refused message of failed\n"
    assert bus.list_refused("failed").data == []
