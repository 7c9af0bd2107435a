"""What people see."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from fastpubsub.client import Client
from tests import harness
from tests.cli.conftest import Cli, Terminal


def test_a_table(terminal: Callable[[int], Terminal], bus: Client) -> None:
    bus.publish("orders", {"text": "日本語 " * 100}, {"text": "\u009b31m"})
    code, seen = terminal(100).run("pull", "billing", variables={"NO_COLOR": "1"})
    titles, *rows = seen.splitlines()
    assert (code, titles.split()) == (0, ["ID", "CREATED", "ATTEMPTS", "PAYLOAD"])
    assert all(cell_len(row) <= 100 for row in rows)
    assert rows[0].endswith("…")
    assert rows[1].endswith('{"text": "\\x9b31m"}')
    assert re.search(r"  \d+ [sm] ago +1  ", rows[0])


def test_one_is_shown_in_full(terminal: Callable[[int], Terminal], bus: Client) -> None:
    bus.update_subscription("billing", filter={"country": ["BR"] * 50})
    code, seen = terminal(40).run("subscriptions", "show", "billing")
    assert code == 0
    assert '"BR", ' * 49 + '"BR"]}' in seen


def test_colors_are_for_terminals_that_have_them(terminal: Callable[[int], Terminal], cli: Cli) -> None:
    titles = "\x1b[1mID      RETENTION  CREATED    SCHEMA\x1b[0m"
    assert terminal(80).run("topics", "list")[1].splitlines()[0] == titles
    assert "\x1b[31mfastpubsub:\x1b[0m topic" in terminal(80).run("topics", "show", "none")[1]
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in terminal(80).run("status", variables=variables)[1]
    assert "\x1b" not in cli("topics", "list", "--table").stdout


def test_times_on_a_terminal(terminal: Callable[[int], Terminal]) -> None:
    plain = {"NO_COLOR": "1"}
    both = r"\d{4}-\d\d-\d\dT[\d:]{8}Z \(\d+ [sm] ago\)"
    assert re.search(r"  \d+ [sm] ago ", terminal(80).run("topics", "list", variables=plain)[1])
    assert re.search(both, terminal(80).run("topics", "list", "-o", "wide", variables=plain)[1])
    assert re.search(both, terminal(80).run("topics", "show", "orders", variables=plain)[1])
    assert " ago" not in terminal(80).run("topics", "list", "--json")[1]


def test_programs_get_json_whatever_else_is_a_terminal(terminal: Callable[[int], Terminal], tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        code, seen = terminal(80).run("topics", "list", stdout=out)
    assert (code, seen) == (0, "")
    assert (tmp_path / "out").read_text().startswith('{"id":"orders",')


def test_json_on_a_terminal(terminal: Callable[[int], Terminal]) -> None:
    """The same JSON, with escapes where a letter would steer it."""
    assert terminal(80).run("topics", "list", "--json")[1].startswith('{"id":"orders",')


@pytest.mark.parametrize(("typed", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_deleting_asks(terminal: Callable[[int], Terminal], bus: Client, typed: bytes, code: int) -> None:
    done, seen = terminal(80).run("topics", "delete", "orders", typed=typed)
    assert "Delete the topic orders with all subscriptions and messages? [y/N]" in seen
    assert (done, len(bus.list_topics())) == (code, code)
    if code:
        assert terminal(80).run("topics", "delete", "orders", "--yes")[0] == 0


def test_long_work_has_a_bar(
    terminal: Callable[[int], Terminal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("from fastpubsub.cli import progress\nprogress.PATIENCE_SECONDS = 0\n")
    (tmp_path / "lines").write_text("{}\n" * 1200)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, seen = terminal(80).run("publish", "orders", "--file", "lines", cold=True)
    assert (code, "publishing" in seen, "1200/?" in seen) == (0, True, True)
    assert seen.endswith("published 1200 messages to orders\n")
    quiet = terminal(80).run("publish", "orders", "-f", "lines", cold=True, stderr=subprocess.DEVNULL)
    assert "publishing" not in quiet[1]


def test_completion(cli: Cli) -> None:
    for shell in ("zsh", "fish"):
        script = cli("completion", shell)
        assert script.returncode == 0
        assert "_FASTPUBSUB_COMPLETE" in script.stdout


def test_bash_completes(cli: Cli, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(
        cli("completion", "bash").stdout
        + "\nCOMP_WORDS=(fastpubsub topics cre); COMP_CWORD=2; _fastpubsub_completion fastpubsub; echo ${COMPREPLY[@]}"
    )
    path = f"{harness.COMMAND.parent}:/usr/bin:/bin"
    done = subprocess.run(["bash", script], env={"PATH": path}, capture_output=True, text=True, timeout=200)
    assert re.findall(r"\w+", done.stdout) == ["create"], done.stderr
