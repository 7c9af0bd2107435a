"""What the environment says about server, credentials, proxies and certificates: a sentence, never a traceback."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastpubsub.client.connections import CERTIFICATES, ENVIRONMENT, PROXIES
from fastpubsub.main import app
from tests import warm
from tests.cli.test_every_command import WALK, made

WORK = """
from fastpubsub.client import Worker

worker = Worker()


@worker.subscriber("billing")
async def work(message: dict) -> None: ...
"""
WRONG = {
    "ALL_PROXY": ("socks5://localhost:1", "a SOCKS proxy needs the package socksio"),
    "all_proxy": ("socks5h://localhost:1", "a SOCKS proxy needs the package socksio"),
    "HTTP_PROXY": ("gopher://localhost", "Unknown scheme for proxy URL"),
    "HTTPS_PROXY": ("http://[::1", "Invalid port"),
    "NO_PROXY": ("[::1", "Invalid port"),
    "SSL_CERT_FILE": ("/nonexistent", "No such file or directory"),
    "SSLKEYLOGFILE": ("/nonexistent/keys", "No such file or directory"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_used_is_named(name: str, tmp_path: Path) -> None:
    value, reason = WRONG[name]
    environment = {key: text for key, text in os.environ.items() if key.upper() not in PROXIES + CERTIFICATES}
    ended = warm.run(["topics", "list"], cwd=tmp_path, env=environment | {name: value})
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"fastpubsub: {name}: ")
    assert reason in line


URL, CLIENT_ID, CLIENT_SECRET = ENVIRONMENT
MISCONFIGURED = {
    "no scheme": ({URL: "localhost:8000"}, f"{URL}: the address of a server must begin with http:// or https://"),
    "the end of a line": ({URL: "http://localhost:8000\n"}, f"{URL}: the address of a server cannot have"),
    "no secret": ({CLIENT_ID: "id"}, f"{CLIENT_SECRET}: a client id and its secret go together"),
    "no id": ({CLIENT_SECRET: "secret"}, f"{CLIENT_ID}: a client id and its secret go together"),
    "a space": ({CLIENT_ID: " id", CLIENT_SECRET: "secret"}, f"{CLIENT_ID}: the client id has a character"),
    "a secret of a file": ({CLIENT_ID: "id", CLIENT_SECRET: "secret\n"}, f"{CLIENT_SECRET}: the client secret has"),
}
BY_ITSELF = {"worker", "asyncapi", "create_client", *(name for name in WALK if name.startswith("context "))}
"""The one has a test of its own below; the others ask no server."""


@pytest.fixture
def commands_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.testing._get_command", made)


@pytest.mark.usefixtures("commands_are_made_once")
@pytest.mark.parametrize("what", MISCONFIGURED)
def test_every_command_says_what_is_wrong_with_the_environment(what: str) -> None:
    wrong, sentence = MISCONFIGURED[what]
    environment = dict.fromkeys(ENVIRONMENT) | wrong
    for name, arguments in WALK.items():
        if name not in BY_ITSELF:
            given = [] if "--url" in arguments else arguments  # which would be used instead
            done = CliRunner().invoke(app, [*name.split(), *given], env=environment)
            assert (done.exit_code, done.stdout) == (2, ""), (name, done.output)
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"fastpubsub: {sentence}"), (name, line)


@pytest.mark.parametrize("what", MISCONFIGURED)
def test_a_worker_says_it_too(what: str, tmp_path: Path) -> None:
    wrong, sentence = MISCONFIGURED[what]
    (tmp_path / "work.py").write_text(WORK)
    environment = {name: text for name, text in os.environ.items() if name not in ENVIRONMENT} | wrong
    done = warm.run(["worker", "work:worker"], cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"fastpubsub: {sentence}")
    assert "Traceback" not in done.stderr
