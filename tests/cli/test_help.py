"""Help says of each command how it is used, and TAB offers what there is."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from fastpubsub.cli.examples import EXAMPLES
from fastpubsub.cli.helping import GROUPS
from fastpubsub.client import Client
from fastpubsub.main import app
from tests import harness, warm
from tests.cli.conftest import Cli
from tests.cli.test_every_command import commands, made

AWAY = "http://127.0.0.1:1"
UNREACHABLE = "http://192.0.2.1:81"
"""Of nobody: packets to it get lost."""


def words(example: str) -> list[str]:
    """Those after the last `fastpubsub`, up to what the shell does."""
    found = shlex.split(example.rpartition("fastpubsub ")[2].rstrip(')"'))
    ends = [place for place, word in enumerate(found) if word in ("|", ">", "<", "||")]
    return found[: min(ends, default=len(found))]


@pytest.mark.parametrize(
    ("name", "example"), [(name, example) for name, examples in EXAMPLES.items() for example in examples]
)
def test_an_example_is_of_its_command(name: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the options and arguments go."""
    monkeypatch.chdir(tmp_path)
    for file in ("orders.jsonl", "topology.yaml"):
        Path(file).write_text("")
    given = words(example)
    command: Any = made(app)
    assert given[: len(name.split())] == name.split()
    while children := getattr(command, "commands", None):
        command = children[given.pop(0)]
    command.make_context(name, given)


def test_every_command_has_examples_and_a_place() -> None:
    assert {name for name, _ in commands()} | {""} == EXAMPLES.keys()
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted({name.split()[0] for name, _ in commands()})


def test_help_shows_them(cli: Cli) -> None:
    whole = cli("--help").stdout
    assert [line[:-1] for line in whole.splitlines() if line.endswith(":") and line[0] != " "] == [
        "Options",
        *GROUPS,
        "Examples",
    ]
    assert "fastpubsub topics list --stats" in cli("topics", "list", "--help").stdout
    assert "…" not in whole
    assert "..." not in whole.replace("[ARGS]...", "")


def test_old_names_of_commands(cli: Cli) -> None:
    for name in (
        "db_migrate",
        "generate-secret-key",
        "cleanup-acked-messages",
        "cleanup-stuck-messages",
        "create-client",
    ):
        assert cli(name, "--help").returncode == 0


def completed(url: str, folder: Path, *given: str) -> list[str]:
    """What bash offers for the last word."""
    environment = {
        **harness.environment({"url": url}),
        "_FASTPUBSUB_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(["fastpubsub", *given]).replace("''", ""),
        "COMP_CWORD": str(len(given)),
    }
    done = warm.run([], env=environment, cwd=folder)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("given", "offered"),
    [
        (["topics", "show", ""], ["orders", "other"]),
        (["topics", "show", "or"], ["orders"]),
        (["topics", "delete", "orders", "o"], ["orders", "other"]),
        (["pull", "b"], ["billing"]),
        (["explain", "x", "b"], ["billing"]),
        (["browse", "--topic", "o"], ["orders", "other"]),
        (["browse", "b"], ["billing"]),
        (["subscriptions", "list", "--topic", "ot"], ["other"]),
        (["filter", "test", "--subscription", "b"], ["billing"]),
        (["open", "o"], ["orders", "other"]),
        (["topics", "list", "--context", "h"], ["here"]),
        (["context", "use", ""], ["here"]),
        (["topics", "show", "--url", AWAY, ""], []),
        (["topics", "show", "--url", "nonsense", ""], []),
        (["topics", "show", "--context", "none", ""], []),
        (["topics", "show", "--url", UNREACHABLE, ""], []),
    ],
)
def test_what_is_offered(cli: Cli, bus: Client, tmp_path: Path, given: list[str], offered: list[str]) -> None:
    bus.create_topic("other")
    assert cli("context", "add", "here", "--url", bus.url).returncode == 0
    assert completed(bus.url, tmp_path, *given) == offered


def test_nothing_is_offered_from_a_file_that_is_not_believed(cli: Cli, bus: Client, tmp_path: Path) -> None:
    assert cli("context", "add", "here", "--url", bus.url).returncode == 0
    (tmp_path / "config" / "fastpubsub" / "contexts.json").chmod(0o644)
    assert completed("", tmp_path, "topics", "show", "") == []
