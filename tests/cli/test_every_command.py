"""One walk over all commands: none steers a terminal with what users wrote, none deletes without being told to."""

import functools
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer.main

from fastpubsub.cli.exits import JOINERS
from fastpubsub.client import Client
from fastpubsub.main import app
from tests.cli.conftest import Cli, Terminal

TEXT = "\x7f\x9b31m\x9d0;x\u202e\u2028\u200b\ufeff\U000e0041é"
COLORS = re.compile("\x1b\\[(?:0|1|31|32|33)m")
"""Those that the commands have; no text of users has them."""

BIDI = "\u202eclient"
SCHEMA = json.dumps({"description": TEXT}, ensure_ascii=False)
FILTER = json.dumps({TEXT: [TEXT]}, ensure_ascii=False)
PAYLOAD = json.dumps({TEXT: TEXT}, ensure_ascii=False)

WALK = {
    "topics create": ["new", "--schema", SCHEMA],
    "topics update": ["new", "--schema", SCHEMA],
    "topics show": ["new"],
    "topics list": [],
    "topics delete": [TEXT, "--yes"],
    "subscriptions create": ["new", "orders", "--filter", FILTER],
    "subscriptions update": ["new", "--filter", FILTER],
    "subscriptions apply": ["new", "orders", "--filter", FILTER, "--ack-deadline-seconds", "9"],
    "subscriptions show": ["new"],
    "subscriptions list": [],
    "subscriptions metrics": [TEXT],
    "subscriptions seek": ["new", TEXT],
    "subscriptions pause": [TEXT],
    "subscriptions resume": [TEXT],
    "subscriptions push-attempts": [TEXT, "--message", TEXT],
    "subscriptions rotate-push-secret": [TEXT],
    "subscriptions push-status": [TEXT],
    "subscriptions test-push": [TEXT, "--payload", PAYLOAD],
    "subscriptions resend": [TEXT, TEXT],
    "subscriptions delete": [TEXT, "--yes"],
    "clients create": [BIDI, "topics:read"],
    "clients list": [],
    "clients show": [TEXT],
    "clients update": [TEXT, "--name", TEXT],
    "clients rotate-secret": [TEXT],
    "clients revoke-secret": [TEXT, "old", "--yes"],
    "clients delete": [TEXT, "--yes"],
    "publish": ["orders", PAYLOAD, "-a", f"{TEXT}={TEXT}"],
    "pull": ["billing"],
    "ack": ["billing", TEXT],
    "nack": ["billing", TEXT],
    "reject": ["billing", TEXT, "--reason", TEXT],
    "extend": ["billing", TEXT],
    "browse": ["orders", "--topic"],
    "consumers": ["billing"],
    "export": [],
    "apply": ["-f", "/dev/null"],
    "mcp": ["--url", TEXT],
    "context add": ["new", "--url", "http://localhost:1"],
    "context list": [],
    "context show": [TEXT],
    "context use": [TEXT],
    "context remove": [TEXT],
    "status": [],
    "top": ["--once"],
    "open": [TEXT],
    "filter test": ["--filter", FILTER, "--subscription", "billing"],
    "explain": [TEXT, TEXT],
    "tail": [TEXT],
    "listen": [TEXT, "--forward-to", "http://localhost:1"],
    "delayed list": ["orders"],
    "delayed show": ["orders", TEXT],
    "delayed move": ["orders", TEXT, "--delay-seconds", "5"],
    "delayed cancel": ["orders", TEXT],
    "delayed release": [TEXT],
    "refused list": ["failed"],
    "refused publish": ["orders", TEXT],
    "refused purge": ["orders", TEXT, "--yes"],
    "schedules create": ["orders", "tick", "--cron", TEXT, "--payload", PAYLOAD, "-a", f"{TEXT}={TEXT}"],
    "schedules list": ["orders"],
    "schedules show": ["orders", TEXT],
    "schedules update": ["orders", TEXT, "--time-zone", TEXT],
    "schedules pause": ["orders", TEXT],
    "schedules resume": ["orders", TEXT],
    "schedules fire": ["orders", TEXT],
    "schedules delete": ["orders", TEXT, "--yes"],
    "dlq list": ["billing"],
    "dlq reprocess": ["billing", TEXT],
    "dlq purge": ["billing", TEXT, "--yes"],
    "dlq redrive": ["billing", "--reason", TEXT, "--filter", FILTER, "--per-second", "5"],
    "dlq redrives": ["billing"],
    "dlq cancel": ["billing", "1"],
    "create_client": [TEXT, TEXT],
    "worker": [f"{TEXT}:{TEXT}"],
    "asyncapi": [f"{TEXT}:{TEXT}", "--title", TEXT],
}
SAYS_NOTHING_OF_USERS = {
    *("server", "push", "dev", "db-migrate", "db-spread", "healthcheck", "doctor", "completion", "generate_secret_key"),
    *("cleanup_acked_messages", "cleanup_stuck_messages"),
}
DESTROYS = {
    "topics delete",
    "subscriptions delete",
    "schedules delete",
    "refused purge",
    "clients delete",
    "clients revoke-secret",
    "dlq purge",
    "dlq redrive",
    "apply",
}


made = functools.cache(typer.main.get_command)
"""To make all of them takes longer than to run one."""


def commands() -> Iterator[tuple[str, set[str]]]:
    """The name of each, and its options."""
    left = [("", made(app))]
    while left:
        name, command = left.pop()
        children = getattr(command, "commands", {})
        left += [(f"{name} {child}".strip(), one) for child, one in children.items() if not one.hidden]
        if not children:
            yield name, {option for parameter in command.params for option in parameter.opts}


@pytest.mark.long
def test_no_command_steers_the_terminal(terminal: Callable[[int], Terminal], bus: Client) -> None:
    bus.create_topic("failed")
    bus.update_subscription("billing", dead_letter_topic="failed")
    bus.update_topic("failed", schema={"maxProperties": 0})
    bus.publish("orders", {TEXT: TEXT}, attributes={TEXT: TEXT})
    bus.reject("billing", bus.pull("billing"), reason=TEXT)
    bus.update_subscription("billing", dead_letter_topic=None)
    while not bus.list_refused("failed").data:
        time.sleep(0.05)
    bus.publish("orders", {TEXT: TEXT}, attributes={TEXT: TEXT})
    bus.publish("orders", {TEXT: TEXT}, attributes={TEXT: TEXT}, delay_seconds=3600)
    bus.create_schedule("orders", "hourly", {TEXT: TEXT}, interval_seconds=3600, attributes={TEXT: TEXT})
    shown = []
    there = dict(commands())
    for name, arguments in WALK.items():
        has_json = "--json" in there.get(name, ())
        _, seen = terminal(80).run(*name.split(), *arguments, *(["--json"] if has_json else []))
        seen = COLORS.sub("", seen)
        steering = {one for one in seen if not one.isprintable() and one not in JOINERS + "\n"}
        assert (seen != "", steering) == (True, set()), (name, ascii(seen))
        if has_json and "Usage" not in seen:
            shown += [json.loads(line) for line in seen.splitlines() if line.startswith("{")]
    texts = json.dumps(shown)
    assert texts.count(json.dumps(TEXT)[1:-1]) >= 14
    assert WALK.keys() | SAYS_NOTHING_OF_USERS == there.keys()


def test_nothing_is_destroyed_where_nobody_can_be_asked(cli: Cli, bus: Client, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("topics: {}")
    bus.publish("orders", {})
    (letter,) = bus.pull("billing")
    bus.reject("billing", [letter], reason="no")
    client = bus.create_client("one", "topics:read")
    bus.rotate_client_secret(str(client.id))
    bus.create_schedule("orders", "tick", interval_seconds=3600)
    calls = {
        "topics delete": ["orders"],
        "subscriptions delete": ["billing"],
        "schedules delete": ["orders", "tick"],
        "refused purge": ["orders", "--all"],
        "clients delete": [str(client.id)],
        "clients revoke-secret": [str(client.id), "old"],
        "dlq purge": ["billing", "--all"],
        "dlq redrive": ["billing", "--purge", "--reason", "another"],
    }
    calls = {"apply": ["-f", "empty.yaml", "--prune"]} | calls
    bus.create_topic("pruned")
    assert calls.keys() == DESTROYS == {name for name, options in commands() if "--yes" in options}
    for name, arguments in reversed(calls.items()):
        refused = cli(*name.split(), *arguments)
        assert (refused.returncode, "add --yes" in refused.stderr) == (2, True), refused.stderr
        assert name == "apply" or refused.stdout == ""
    assert [one.id for one in bus.list_topics()] == ["orders", "pruned"]
    assert bus.metrics("billing").dlq == 1
    for name, arguments in reversed(calls.items()):
        assert cli(*name.split(), *arguments, "--yes").returncode == 0, name
    assert bus.list_topics() == []


def test_every_command_that_deletes_asks() -> None:
    for name, options in commands():
        if {"delete", "purge", "revoke-secret"} & set(name.split()):
            assert "--yes" in options, name
