"""A file of topics, subscriptions and clients, and what it changes."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from fastpubsub.cli.records import pages
from fastpubsub.client import Client, requests
from fastpubsub.client.requests import Request
from tests.cli.conftest import Cli

FILE = """
topics:
  orders: {retention_seconds: 60, schema: {properties: {total: {maximum: 1.0e+400}}}}
  events:
subscriptions:
  billing: {topic_id: orders, ack_deadline_seconds: 30}
  mails: {topic_id: events, filter: {country: [BR, 12.50, true]}}
clients:
  mailer: {scopes: "subscriptions:consume:mails"}
"""


def actions(stdout: str) -> list[tuple[str, str, str]]:
    return [(one["action"], one["kind"], one["id"]) for one in map(json.loads, stdout.splitlines())]


def test_applying_twice_changes_once(cli: Cli, bus: Client, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(FILE)
    dry = cli("apply", "-f", "t.yaml", "--dry-run")
    expected = [
        ("update", "topic", "orders"),
        ("create", "topic", "events"),
        ("update", "subscription", "billing"),
        ("create", "subscription", "mails"),
        ("create", "client", "mailer"),
    ]
    assert (actions(dry.stdout), dry.returncode) == (expected, 0), dry.stderr
    assert [one.id for one in bus.list_topics()] == ["orders"]
    done = cli("apply", "-f", "t.yaml")
    assert (done.stdout, done.returncode) == (dry.stdout, 0), done.stderr
    assert "client_secret=fps_" in done.stderr
    changes = json.loads(done.stdout.splitlines()[2])["changes"]
    assert changes == "ack_deadline_seconds: 60 → 30"
    again = cli("apply", "-f", "t.yaml")
    assert (again.stdout, again.stderr, again.returncode) == ("", "nothing to change\n", 0)
    exported = cli("export").stdout
    assert "fps_" not in exported
    assert "secret" not in exported
    (tmp_path / "exported.yaml").write_text(exported)
    assert cli("apply", "-f", "exported.yaml", "--prune").stderr == "nothing to change\n"
    read = yaml.safe_load(exported)
    assert read["subscriptions"]["mails"]["filter"] == {"country": ["BR", 12.5, True]}
    assert read["clients"] == {"mailer": {"scopes": "subscriptions:consume:mails", "is_active": True}}


def test_only_pruning_deletes_and_only_in_the_sections_of_the_file(cli: Cli, bus: Client, tmp_path: Path) -> None:
    bus.create_client("kept", "topics:read")
    bus.create_topic("old")
    (tmp_path / "t.yaml").write_text("topics: {orders: }")
    assert cli("apply", "-f", "t.yaml").stderr == "nothing to change\n"
    done = cli("apply", "-f", "t.yaml", "--prune", "--yes")
    assert actions(done.stdout) == [("delete", "topic", "old")]
    assert [one.id for one in bus.list_topics()] == ["orders"]
    assert len(bus.list_subscriptions()) == len(bus.list_clients()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("topics: [", "expected"),
        ("- topics", "the file is not a mapping"),
        ("schedules: {daily: {}}", "the name of a schedule is that of its topic"),
        ("topix: {}", "'topix' is unknown; known are topics, subscriptions, schedules, clients"),
        ("topics: {a: {filter: }}", "topics: a: 'filter' is unknown; known are retention_seconds, schema"),
        ("topics: {5: }", "topics: '5' is not text; quote it"),
        ("topics: {a: , a: }", "'a' comes twice"),
        ("subscriptions: {a: }", "subscriptions: a: topic_id is missing"),
        ("topics: !!python/object:os.system {}", "could not determine a constructor"),
    ],
)
def test_a_file_that_is_wrong_changes_nothing(cli: Cli, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    done = cli("apply", "-f", "t.yaml")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert said in done.stderr


def test_the_jitter_of_a_subscription(cli: Cli, bus: Client, tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    for share, left in (("0.5", 0.5), ("1", 1), ("0", None)):
        file.write_text(f"subscriptions: {{billing: {{topic_id: orders, backoff_jitter: {share}}}}}")
        assert actions(cli("apply", "-f", "t.yaml").stdout) == [("update", "subscription", "billing")]
        assert bus.get_subscription("billing").backoff_jitter == left
        assert cli("apply", "-f", "t.yaml").stderr == "nothing to change\n"
    update = ("subscriptions", "update", "billing", "--backoff-jitter")
    assert cli(*update, "0.25").returncode == 0
    file.write_text(exported := cli("export").stdout)
    assert "backoff_jitter: 0.25\n" in exported
    assert cli("apply", "-f", "t.yaml", "--prune").stderr == "nothing to change\n"
    assert "--backoff-jitter" in cli(*update, "1.5").stderr
    assert cli(*update, "0").returncode == 0
    assert "backoff_jitter" not in cli("export").stdout


def test_a_subscription_keeps_its_topic(cli: Cli, bus: Client, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("topics: {b: }\nsubscriptions: {billing: {topic_id: b}}")
    done = cli("apply", "-f", "t.yaml")
    assert (done.returncode, "has the topic orders" in done.stderr) == (1, True)
    assert [one.id for one in bus.list_topics()] == ["orders"], "nothing is changed before all is compared"


def test_clients_that_share_a_name_are_left_alone(cli: Cli, bus: Client, tmp_path: Path) -> None:
    for scopes in ("topics:read", "clients:read"):
        bus.create_client("twin", scopes)
    exported = cli("export")
    assert (exported.returncode, "twin" in exported.stdout, "twin" in exported.stderr) == (0, False, True)
    (tmp_path / "t.yaml").write_text(exported.stdout)
    assert cli("apply", "-f", "t.yaml", "--prune").stderr == "nothing to change\n"
    (tmp_path / "t.yaml").write_text("clients: {twin: {scopes: '*'}}")
    assert cli("apply", "-f", "t.yaml").returncode == 1


def test_schedules_are_exported_applied_and_pruned(cli: Cli, bus: Client, tmp_path: Path) -> None:
    bus.create_topic("reports")
    bus.create_schedule("reports", "daily", {"n": 1}, cron="0 9 * * *", time_zone="Europe/Berlin")
    bus.create_schedule("reports", "old", interval_seconds=60)
    exported = cli("export").stdout
    (tmp_path / "t.yaml").write_text(exported)
    assert "reports/daily:" in exported
    assert "nothing to change" in cli("apply", "-f", "t.yaml").stderr
    wanted = 'schedules:\n  reports/daily: {interval_seconds: 3600}\n  reports/new: {cron: "* * * * *"}\n'
    (tmp_path / "t.yaml").write_text(wanted)
    applied = cli("apply", "-f", "t.yaml", "--prune", "--yes")
    assert applied.returncode == 0, applied.stderr
    found = bus.list_schedules("reports")
    assert [(one.id, one.cron, one.interval_seconds) for one in found] == [
        ("daily", None, 3600),
        ("new", "* * * * *", None),
    ]
    assert found[0].payload == {"n": 1}


class Partly:
    """A server that has a node which does not answer."""

    def send(self, request: Request[Any]) -> Any:
        return request.read(b'{"data":[{"id":"a"}],"missing_topics":["b","c"]}')


def test_what_needs_all_topics_ends_when_some_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """Or it would create or forget them."""
    client, build = cast("Client", Partly()), lambda offset, limit: requests.list_topics(offset=offset, limit=limit)
    found = [[one.fields["id"] for one in page] for page in pages(client, build, 2, 0)]
    assert found == [["a"], ["a"]]
    told = "a node of PostgreSQL does not answer, so these topics are missing: b, c\n"
    assert capsys.readouterr().err == f"fastpubsub: {told}", "told once"
    with pytest.raises(SystemExit) as ended:
        list(pages(client, build, 2, 0, whole=True))
    assert (ended.value.code, capsys.readouterr().err) == (
        1,
        f"fastpubsub: {told}fastpubsub: all of them are needed for this: try again when the node answers\n",
    )
