"""One access token for many commands, in a file of its owner."""

import json
import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from fastpubsub.cli.remembering import KEPT_SECONDS, StoredTokens
from fastpubsub.client.exchange import Tokens
from tests import harness, warm
from tests.attacks import KEY
from tests.cli.conftest import Done, make_pipe, without_silence
from tests.conftest import Run
from tests.lasting import Last, Lasting


@dataclass
class Guarded:
    """A server with authentication, and the commands of a client that may read topics."""

    url: str
    client_id: str
    client_secret: str
    folder: Path
    log: Path
    began: int
    """Bytes of the log, when the test did."""

    def run(self, *arguments: str, **changed: object) -> Done:
        given = {"url": self.url, "client_id": self.client_id, "client_secret": self.client_secret}
        return without_silence(warm.run(arguments, cwd=self.folder, env=harness.environment({**given, **changed})))

    def fetched(self) -> int:
        """How often a token was."""
        return self.log.read_bytes()[self.began :].count(b"/oauth/token")

    @property
    def files(self) -> list[Path]:
        return list((self.folder / "cache" / "fastpubsub" / "tokens").glob("*.json"))

    @property
    def stored(self) -> dict[str, Any]:
        (file,) = self.files
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def change(self, **changes: object) -> None:
        (file,) = self.files
        file.write_text(json.dumps(self.stored | changes))


@pytest.fixture
def lasting(lasting_server: Last) -> Lasting:
    return lasting_server(auth_enabled=True, auth_secret_key=KEY)


@pytest.fixture
def guarded(lasting: Lasting, run: Run, tmp_path: Path) -> Guarded:
    made = run("create_client", "reader", "topics:read").stdout
    id_, secret = (line.partition("=")[2] for line in made.splitlines())
    # What is answered now is written behind all that the test before asked for.
    httpx.get(f"{lasting.base_url}/liveness").raise_for_status()
    return Guarded(lasting.base_url, id_, secret, tmp_path, lasting.log, lasting.log.stat().st_size)


def test_a_token_is_fetched_once(guarded: Guarded) -> None:
    for _ in range(3):
        assert guarded.run("topics", "list").returncode == 0
    assert guarded.fetched() == 1
    (file,) = guarded.files
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert guarded.client_secret not in file.read_text() + file.name


def test_another_secret_is_another_file(guarded: Guarded) -> None:
    assert guarded.run("topics", "list").returncode == 0
    wrong = guarded.run("topics", "list", client_secret="wrong")
    assert (wrong.returncode, wrong.stdout, len(guarded.files)) == (1, "", 1)
    assert guarded.run("topics", "list").returncode == 0


def test_a_token_that_is_refused_is_thrown_away(guarded: Guarded) -> None:
    assert guarded.run("topics", "list").returncode == 0
    for token in ("refused", guarded.stored["token"][:-3] + "abc"):
        guarded.change(token=token)
        assert guarded.run("topics", "list").returncode == 0
        assert guarded.stored["token"] != token
    assert guarded.fetched() == 3


@pytest.mark.parametrize("away", [-10.0, 10.0])
def test_a_token_ends_before_the_server_says_so(guarded: Guarded, away: float) -> None:
    """Also when the clock was set back meanwhile."""
    assert guarded.run("topics", "list").returncode == 0
    seconds = guarded.stored["seconds"]
    saved_at = time.time() - seconds - 10 if away < 0 else time.time() + away
    guarded.change(saved_at=saved_at)
    assert guarded.run("topics", "list").returncode == 0
    assert guarded.fetched() == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.chmod(0o644),
        lambda file: file.write_bytes(b"\xff"),
        lambda file: file.write_text("[1]"),
        lambda file: file.write_text('{"token": 1, "saved_at": 0, "seconds": 1e99}'),
        lambda file: file.write_text('{"token": "a\\r\\nb: c", "saved_at": 0, "seconds": 1e99}'),
        lambda file: file.write_text('{"token": "a", "saved_at": "nan", "seconds": "nan"}'),
        lambda file: file.write_text("[" * 60_000),
        lambda file: file.write_text(" " * (1 << 20)),
        lambda file: (file.rename(file.with_suffix(".other")), file.symlink_to(file.with_suffix(".other"))),
        make_pipe,
    ],
)
def test_a_file_that_is_not_believed_is_replaced(guarded: Guarded, spoil: Callable[[Path], object]) -> None:
    assert guarded.run("topics", "list").returncode == 0
    (file,) = guarded.files
    spoil(file)
    done = guarded.run("topics", "list")
    assert (done.returncode, done.stderr, guarded.fetched()) == (0, "", 2)
    assert guarded.run("topics", "list").returncode == 0
    assert (guarded.fetched(), file.is_symlink()) == (2, False)


def test_without_a_place_each_command_fetches_one(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    (guarded.folder / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(guarded.folder / "file"))
    for fetched in (1, 2):
        done = guarded.run("topics", "list")
        assert (done.returncode, done.stderr, guarded.fetched()) == (0, "", fetched)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "")
    assert guarded.run("topics", "list").returncode == 0


def test_a_folder_of_others_gets_no_token(guarded: Guarded) -> None:
    folder = guarded.folder / "cache" / "fastpubsub" / "tokens"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert guarded.run("topics", "list").returncode == 0
    assert list(folder.iterdir()) == []


def test_two_commands_at_once(guarded: Guarded) -> None:
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: guarded.run("topics", "list"), range(8)))
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 8
    assert len(list(guarded.files[0].parent.iterdir())) == 1


def test_no_credentials_no_token(guarded: Guarded) -> None:
    done = guarded.run("topics", "list", client_id=None, client_secret=None)
    assert (done.returncode, guarded.files) == (1, [])


def test_files_of_long_ago_go_away(tmp_path: Path) -> None:
    old = tmp_path / "tokens" / "old.json"
    old.parent.mkdir(mode=0o700)
    old.write_text("")
    os.utime(old, (0, time.time() - KEPT_SECONDS - 1))
    tokens = StoredTokens("http://a", Tokens("id", "secret"), old.parent)
    tokens.take("token", 60)
    tokens._write("token")
    assert [file.name for file in old.parent.iterdir()] == [tokens._file.name]
