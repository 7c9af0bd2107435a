"""`status`, `top`, `open`, `filter test` and `--stats`: a look at the whole, and at one."""

import csv
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from fastpubsub.cli.tables import figure
from fastpubsub.client import Client
from tests import harness
from tests.cli.conftest import Cli, Start, Terminal
from tests.conftest import StartServer

TITLES = ["SUBSCRIPTION", "TOPIC", "AVAILABLE", "LEASED", "DLQ", "OLDEST", "DELIVERED/S", "ACKED/S"]


def fail_one(bus: Client) -> None:
    bus.publish("orders", {})
    bus.reject("billing", bus.pull("billing"), reason="no")


def test_status_of_a_healthy_server(cli: Cli, bus: Client) -> None:
    bus.publish("orders", {})
    done = cli("status", "--check", "--table")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{bus.url}  version \S+  authentication off", lines[0])
    assert lines[2] == "Nothing is wrong."
    assert lines[4:6] == ["topics 1  subscriptions 1  published 1", "ahead 1  leased 0  waiting 0  dead 0"]
    assert [line.split()[:3] for line in lines[-2:]] == [TITLES[:3], ["billing", "orders", "1"]]


def test_status_says_what_is_wrong_first(cli: Cli, bus: Client) -> None:
    fail_one(bus)
    assert cli("status").returncode == 0
    done = cli("status", "--check", "--table")
    assert (done.returncode, done.stdout.splitlines()[2]) == (3, "1 thing to look at:")
    assert "dead letters  billing       orders" in done.stdout
    checked = cli("status", "--check")
    (finding,) = json.loads(checked.stdout)["findings"]
    assert (checked.returncode, finding["subscription_id"]) == (3, "billing")


def test_status_is_bounded(cli: Cli, bus: Client) -> None:
    for number in range(12):
        bus.create_subscription(f"s{number:02}", "orders")
    assert cli("status", "--table").stdout.splitlines()[-1] == "… and 3 more: `fastpubsub subscriptions list --stats`"


def test_status_shows_what_the_client_may_read(server: StartServer, cli: Cli) -> None:
    url = server(auth_enabled=True, auth_secret_key="0123456789abcdef" * 4).base_url
    refused = cli("status", url=url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "set FASTPUBSUB_CLIENT_ID and FASTPUBSUB_CLIENT_SECRET" in refused.stderr


def test_counts_in_lists(cli: Cli, bus: Client) -> None:
    bus.publish("orders", {}, {})
    bus.pull("billing", batch_size=1)
    table = cli("subscriptions", "list", "--stats", "--table").stdout.splitlines()
    assert table[0].split() == ["ID", *TITLES[1:]]
    assert table[1].split()[:5] == ["billing", "orders", "1", "1", "0"]
    (row,) = csv.DictReader(cli("subscriptions", "list", "--stats", "-o", "csv").stdout.splitlines())
    assert (row["metrics.available"], row["metrics.delivered"]) == ("1", "1")
    (listed,) = cli("topics", "list", "--stats").stdout.splitlines()
    assert json.loads(listed)["metrics"]["published"] == 2
    assert cli("topics", "list", "--stats", "--table").stdout.splitlines()[0].split()[:3] == ["ID", "PUBLISHED", "KEPT"]
    assert cli("subscriptions", "list", "--stats", "--topic", "none").stdout == ""


def test_figures_of_a_server_that_lies() -> None:
    assert figure("metrics.dlq", {"a": 1}) == {"a": 1}
    assert figure("metrics.oldest_ahead_seconds", "x") == "x"


def test_filters_are_tried(cli: Cli, bus: Client) -> None:
    bus.publish("orders", {"country": "BR", "total": 1.00}, {"country": "US"})
    wanted = ["--filter", '{"country": ["BR"]}']
    found = cli("filter", "test", *wanted, "--subscription", "billing", "--table").stdout.splitlines()
    assert found[:2] == ["1 of 2 messages pass", "ahead now 2, with this filter 1"]
    assert (found[3], found[7]) == ("passes:", "is kept out:")
    of_topic = json.loads(cli("filter", "test", *wanted, "--topic", "orders", "-n", "1").stdout)
    assert (of_topic["looked_at"], of_topic["passed"]) == (1, 0)
    judged = json.loads(cli("filter", "test", *wanted, "--topic", "orders", "--payload", '{"Country": "BR"}').stdout)
    assert (judged["passes"], judged["similar_field"]) == (False, "Country")
    beside = ["--filter", '{"$attributes": {"env": ["prod"], "tier": ["1"]}, "$message": [{"ordering_key": ["k"]}]}']
    beside += ["--topic", "orders", "--payload", "{}", "-a", "env=prod", "--attribute", "tier=1", "--ordering-key"]
    assert [json.loads(cli("filter", "test", *beside, key).stdout)["passes"] for key in ("k", "x")] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--filter", "{}"], "give --subscription, or --topic"),
        (["--filter", "{}", "--topic", "orders", "--subscription", "billing"], "give --subscription, or --topic"),
        (["--filter", "{}", "--topic", "orders", "--payload", "{}", "-n", "1"], "give --payload, or --last"),
        (["--filter", "{}", "--topic", "orders", "--ordering-key", "k"], "with a --payload"),
        (["--filter", "{}", "--topic", "orders", "--payload", "{}", "-a", "k"], "is not NAME=VALUE"),
        (["--filter", "{", "--topic", "orders"], "--filter is not JSON"),
        (["--filter", "{}", "--topic", "orders", "--payload", "["], "--payload is not JSON"),
        (["--filter", "[]", "--topic", "orders"], "fastpubsub: --filter: "),
    ],
)
def test_what_cannot_be_tried(cli: Cli, arguments: list[str], sentence: str) -> None:
    done = cli("filter", "test", *arguments)
    assert (done.returncode in (1, 2), done.stdout, sentence in done.stderr) == (True, "", True), done.stderr


BROWSER = """#!/bin/sh
echo "$1" > opened
"""


def test_the_console_opens(terminal: Callable[[int], Terminal], cli: Cli, bus: Client, tmp_path: Path) -> None:
    (tmp_path / "browser").write_text(BROWSER)
    (tmp_path / "browser").chmod(0o755)
    browser = {"BROWSER": str(tmp_path / "browser")}
    (message,) = bus.publish("orders", {})
    for name, place in (
        ([], ""),
        (["orders"], "topics/orders"),
        (["billing"], "subscriptions/billing"),
        ([message], f"messages/{message}"),
    ):
        code, _ = terminal(80).run("open", *name, variables=browser)
        assert (code, (tmp_path / "opened").read_text()) == (0, f"{bus.url}/console#/{place}\n")
    assert cli("open", "orders", "--print").stdout == f"{bus.url}/console#/topics/orders\n"
    code, seen = terminal(80).run("open", variables={"BROWSER": "false"})
    assert (code, "there is no browser here" in seen, f"{bus.url}/console" in seen) == (1, True, True)


def test_what_cannot_be_opened(cli: Cli, bus: Client, server: StartServer) -> None:
    bus.create_subscription("orders", "orders")
    both = cli("open", "orders", "--print")
    assert (both.returncode, "add --topic or --subscription" in both.stderr) == (2, True)
    assert cli("open", "orders", "--print", "--subscription").stdout.endswith("#/subscriptions/orders\n")
    unknown = cli("open", "nothing", "--print")
    assert (unknown.returncode, "there is no topic, subscription or message nothing" in unknown.stderr) == (1, True)
    assert cli("open", "--topic").returncode == 2
    without = cli("open", url=server(console_enabled=False).base_url)
    assert (without.returncode, "serves no console" in without.stderr) == (1, True)


def test_top_once(cli: Cli, bus: Client) -> None:
    bus.create_subscription("a", "orders", filter={"country": ["BR"]})
    fail_one(bus)
    lines = cli("top").stdout.splitlines()
    assert sorted(line.split()[0] for line in lines[-2:]) == ["a", "billing"]
    by_dead = cli("top", "--sort", "dead", "--topic", "orders").stdout.splitlines()
    assert (by_dead[-3].split(), by_dead[-2].split()[0]) == (TITLES, "billing")


def test_top_is_drawn_until_q(terminal: Callable[[int], Terminal]) -> None:
    code, seen = terminal(80).run("top", typed=b"xq")
    assert (code, "\x1b[?1049h" in seen, "billing" in seen, seen.endswith("\x1b[?1049l")) == (0, True, True, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_top_leaves_the_terminal_as_it_was(start: Start, number: signal.Signals) -> None:
    ours, its = pty.openpty()
    before = termios.tcgetattr(its)
    running = start("top", stdin=its, stdout=its)
    seen = bytearray()
    while b"q ends it." not in seen:
        seen += os.read(ours, 65536)
    assert termios.tcgetattr(its) != before
    assert running.end(number) == 0
    assert termios.tcgetattr(its) == before
    assert os.read(ours, 65536).endswith(b"\x1b[?1049l")
    os.close(ours)
    os.close(its)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["status", "top", "subscriptions list", "ack billing -", "context list"])
def test_a_closed_stream_is_an_empty_one(bus: Client, tmp_path: Path, command: str, closed: str) -> None:
    environment = harness.environment({"url": bus.url})
    script = f"{shlex.quote(str(harness.COMMAND))} {command} {closed}"
    done = subprocess.run(["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, timeout=200)
    assert (done.returncode in (0, 2), b"Traceback" in done.stderr) == (True, False), done.stderr


@pytest.mark.parametrize(
    "command", ["status", "top", "topics list", "export", "context list --table", "completion bash"]
)
def test_a_full_disk_is_a_sentence(start: Start, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        running = start(*command.split(), *(["--table"] if command == "context list" else []), stdout=full)
        assert (running.end(), running.errors) == (1, "fastpubsub: standard output: No space left on device\n")


def test_ids_are_whole_as_long_as_possible(terminal: Callable[[int], Terminal], bus: Client) -> None:
    bus.publish("orders", {"text": "long" * 50})
    (letter,) = bus.pull("billing")
    bus.reject("billing", [letter], reason="a reason of many words, which is long")
    assert str(letter.id) in terminal(80).run("dlq", "list", "billing")[1]
