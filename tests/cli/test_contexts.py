"""Where the server is and who asks: an option before a variable, a variable before the context; and its file."""

import json
import os
import pty
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastpubsub.cli import places, private_files
from fastpubsub.client import Client
from tests.cli.conftest import Cli, Start, make_pipe

A = places.Context("http://a.example", "client-a", "secret-a")
OPEN = places.Context("http://open.example")
WITHOUT_SECRET = places.Context("http://b.example", "client-b")
CONTEXTS = places.Contexts("a", {"a": A, "open": OPEN, "b": WITHOUT_SECRET})
URL, ID, SECRET = "http://variable.example", "client-v", "secret-v"


def file_of(folder: Path) -> Path:
    return folder / "config" / "fastpubsub" / "contexts.json"


def store(folder: Path, url: str) -> Path:
    file = file_of(folder)
    file.parent.mkdir(parents=True, mode=0o700)
    file.write_text(json.dumps({"current": "here", "contexts": {"here": {"url": url}}}))
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("options", "variables", "chosen"),
    [
        ((None, None, None), ("", "", ""), (A.url, "client-a", "secret-a")),
        ((None, None, None), (URL, "", ""), (URL, "", "")),
        ((None, None, None), ("", ID, SECRET), (A.url, ID, SECRET)),
        ((None, None, None), ("", "", SECRET), (A.url, "client-a", SECRET)),
        (("http://o.example", None, None), (URL, ID, SECRET), ("http://o.example", ID, SECRET)),
        (("http://o.example", None, None), ("", "", ""), ("http://o.example", "", "")),
        ((None, "client-o", None), ("", "", ""), (A.url, "client-o", "")),
        ((None, "client-o", None), (URL, ID, SECRET), (URL, "client-o", SECRET)),
        ((None, "client-a", None), ("", "", ""), (A.url, "client-a", "secret-a")),
        ((None, None, "a"), (URL, ID, SECRET), (A.url, "client-a", "secret-a")),
        ((None, None, "open"), (URL, ID, SECRET), (OPEN.url, "", "")),
        ((None, None, "open"), (URL, "", SECRET), (OPEN.url, "", "")),
        ((None, None, "b"), (URL, ID, SECRET), (WITHOUT_SECRET.url, "client-b", "")),
        ((None, None, "b"), (URL, "client-b", SECRET), (WITHOUT_SECRET.url, "client-b", SECRET)),
        ((None, None, "b"), ("", "", SECRET), (WITHOUT_SECRET.url, "client-b", SECRET)),
    ],
)
def test_who_goes_first(
    options: tuple[str | None, ...],
    variables: tuple[str, ...],
    chosen: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A secret goes only to the server, and with the client, that it was given for."""
    monkeypatch.setattr(places, "load", lambda: CONTEXTS)
    monkeypatch.setattr(places, "in_use", None)
    names = (places.URL, places.CLIENT_ID, places.CLIENT_SECRET)
    for name, value in zip(names, variables, strict=True):
        monkeypatch.setenv(name, value)
    places.choose(*options)
    assert tuple(os.environ.get(name, "") for name in names) == chosen


def test_contexts(cli: Cli, bus: Client, tmp_path: Path) -> None:
    nothing: dict[str, object] = {"url": None}
    assert cli("context", "list", **nothing).stdout == ""
    assert cli("context", "show", **nothing).returncode == 2
    added = cli("context", "add", "here", "--url", bus.url, **nothing)
    assert (added.returncode, added.stderr) == (0, "added context here, which is in use\n")
    assert cli("topics", "list", "-o", "id", **nothing).stdout == "orders\n"
    arguments = ["context", "add", "there", "--url", "http://u:p@127.0.0.1:1", "--client-id", "me"]
    assert cli(*arguments, given="hidden\n", **nothing).stderr == "added context there\n"
    assert "add --replace" in cli(*arguments, given="other\n", **nothing).stderr
    listed = cli("context", "list", **nothing)
    assert [json.loads(line) for line in listed.stdout.splitlines()] == [
        {"name": "here", "is_current": True, "url": bus.url, "client_id": None, "has_secret": False},
        {"name": "there", "is_current": False, "url": "http://127.0.0.1:1", "client_id": "me", "has_secret": True},
    ]
    away = cli("topics", "list", "--context", "there")
    assert (away.returncode, "the context there says where it is" in away.stderr) == (1, True)
    assert cli("context", "use", "there", **nothing).stderr == "context there is in use\n"
    assert "the context there says" in cli("topics", "list", **nothing).stderr
    assert cli("topics", "list", "-o", "id").stdout == "orders\n"
    assert json.loads(cli("context", "show", **nothing).stdout)["name"] == "there"
    assert cli("context", "remove", "there", **nothing).stderr == "removed context there; none is in use\n"
    assert "hidden" not in file_of(tmp_path).read_text()
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE(file_of(tmp_path).parent.stat().st_mode) == 0o700


def test_where_secrets_come_from(cli: Cli, start: Start, tmp_path: Path) -> None:
    def secret() -> str | None:
        known: dict[str, dict[str, str | None]] = json.loads(file_of(tmp_path).read_text())["contexts"]
        return known["a"]["client_secret"]

    add = ["context", "add", "a", "--url", "http://a.example", "--client-id", "me", "--replace"]
    assert cli(*add, "--secret-from", "env", client_secret="of-a-variable").returncode == 0
    assert secret() == "of-a-variable"
    assert cli(*add, "--secret-from", "none").returncode == 0
    assert secret() is None
    assert typed_at_the_prompt(start, add) == (0, "Secret of the client: \r\n")
    assert secret() == "typed"
    for more, sentence in (
        (["--secret-from", "stdin"], "standard input has no secret"),
        (["--secret-from", "env"], "FASTPUBSUB_CLIENT_SECRET has no secret"),
    ):
        refused = cli(*add, *more)
        assert (refused.returncode, sentence in refused.stderr, secret()) == (2, True, "typed")
    assert cli(*add, given="two words\n").returncode == 2


def typed_at_the_prompt(start: Start, arguments: list[str]) -> tuple[int, str]:
    """The exit code, and what is to be seen of it."""
    ours, its = pty.openpty()
    running = start(*arguments, stdin=its, stdout=its, stderr=its)
    seen = bytearray()
    while not seen.endswith(b": "):
        seen += os.read(ours, 65536)
    os.write(ours, b"typed\n")
    code = running.end()
    seen += os.read(ours, 65536)
    for one in (ours, its):
        os.close(one)
    return code, seen.decode().partition("added")[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["add", "a b", "--url", "http://a"], "a name has up to 64 letters"),
        (["add", "a", "--url", "localhost"], "must begin with http://"),
        (["add", "a", "--url", "http://a", "--secret-from", "env"], "--secret-from needs --client-id"),
        (["add", "a", "--url", "http://a", "--client-id", "a b"], "the client id has a character"),
        (["use", "none"], "there is no context none: `fastpubsub context add` makes one"),
        (["remove", "none"], "there is no context none"),
    ],
)
def test_what_is_no_context(cli: Cli, arguments: list[str], sentence: str) -> None:
    done = cli("context", *arguments, given="secret\n")
    assert (done.returncode, done.stdout, sentence in done.stderr) == (2, "", True), done.stderr


def test_an_address_and_a_context(cli: Cli, bus: Client) -> None:
    done = cli("topics", "list", "--context", "a", "--url", bus.url)
    assert (done.returncode, "give --url or --context, not both" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda file: file.chmod(0o644), "its mode is 644"),
        (lambda file: file.write_bytes(b"\xff{"), "contexts.json: "),
        (lambda file: file.write_text("[]"), "did not write it"),
        (lambda file: file.write_text('{"contexts": {"a": {"url": 1}}}'), "'a' is not a context"),
        (lambda file: file.write_text('{"contexts": {"\x1b[31m": {"url": "http://a"}}}'), "contexts.json: "),
        (lambda file: file.write_text('{"contexts": {"a": {"url": "http://a", "x": 1}}}'), "did not write it"),
        (lambda file: file.write_text('{"contexts": {"a": {"url": "a"}}}'), "must begin with http://"),
        (lambda file: file.write_text("[" * 100_000), "contexts.json: "),
        (lambda file: file.write_text(" " * (2 << 20)), "more than 1024 KiB"),
        (lambda file: (file.rename(file.with_name("other")), file.symlink_to("other")), "symbolic link"),
        (make_pipe, "it is not a file"),
        (lambda file: (file.unlink(), file.mkdir(mode=0o700)), "it is not a file"),
    ],
)
def test_a_file_that_is_not_believed(
    spoil: Callable[[Path], object], sentence: str, cli: Cli, bus: Client, tmp_path: Path
) -> None:
    spoil(store(tmp_path, bus.url))
    for arguments in (["topics", "list"], ["context", "list"], ["context", "use", "here"]):
        done = cli(*arguments, url=None)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        (line,) = done.stderr.splitlines()
        assert sentence in line
        assert line.isprintable()
    assert cli("topics", "list", "-o", "id").stdout == "orders\n"


def test_a_file_of_somebody_else(cli: Cli, bus: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = store(tmp_path, bus.url)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(private_files.Untrusted, match="belongs to another user"):
        private_files.read(file, 100)
    with pytest.raises(private_files.Untrusted, match="belongs to another user"):
        private_files.write(file, b"")


def test_a_home_that_cannot_be_written(cli: Cli, bus: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    add = ["context", "add", "a", "--url", bus.url]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    done = cli(*add, url=None)
    assert (done.returncode, done.stderr.count("\n"), "contexts.json: " in done.stderr) == (1, 1, True), done.stderr
    # Without a context, the default: something else may run there.
    assert "contexts.json" not in cli("topics", "list", url=None).stderr
    for home in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
        monkeypatch.setenv("HOME", home)
        done = cli(*add, url=None)
        assert (done.returncode, "set XDG_CONFIG_HOME" in done.stderr) == (2, True)
        assert cli("topics", "list", "-o", "id").stdout == "orders\n"


def test_a_folder_that_others_can_write_to(cli: Cli, bus: Client, tmp_path: Path) -> None:
    store(tmp_path, bus.url).parent.chmod(0o777)
    done = cli("context", "add", "a", "--url", bus.url, url=None)
    assert (done.returncode, "others can write to" in done.stderr) == (1, True)


def test_two_commands_at_once_keep_both(cli: Cli, bus: Client) -> None:
    names = [f"c{number}" for number in range(8)]
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda name: cli("context", "add", name, "--url", bus.url, url=None), names))
    assert {one.returncode for one in done} == {0}
    assert cli("context", "list", "-o", "csv", url=None).stdout.count("\n") == 9
