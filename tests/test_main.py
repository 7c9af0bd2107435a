import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from fastpubsub import __version__
from fastpubsub.client import Client
from tests import harness, warm
from tests.conftest import Run

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "server",
    "db-migrate",
    "db-spread",
    "cleanup_acked_messages",
    "cleanup_stuck_messages",
    "generate_secret_key",
    "create_client",
    "dev",
    "doctor",
    "explain",
    "ack",
    "asyncapi",
    "nack",
    "reject",
    "extend",
    "listen",
    "browse",
    "apply",
    "export",
    "mcp",
    "healthcheck",
    "worker",
    "publish",
    "pull",
    "push",
    "tail",
    "topics",
    "subscriptions",
    "clients",
    "delayed",
    "refused",
    "schedules",
    "dlq",
    "completion",
    "consumers",
    "context",
    "filter",
    "open",
    "status",
    "top",
}
HEAVY = {"sqlalchemy", "fastapi", "pydantic", "psycopg", "alembic", "gunicorn", "uvicorn", "rich", "httpx"}
KEY = "k" * 32


@pytest.fixture
def run_bare(tmp_path: Path) -> Run:
    """One command in an empty folder, with an environment of nothing but these settings."""

    def command(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        environment = {f"FASTPUBSUB_{name.upper()}": str(value) for name, value in settings.items()}
        return warm.run(arguments, cwd=tmp_path, env=environment)

    return command


def test_help_names_the_commands_and_no_aliases(run_bare: Run) -> None:
    shown = run_bare("--help").stdout.partition("Messages:")[2].partition("Examples:")[0]
    listed = re.findall(r"^  ([\w-]+) ", shown, re.MULTILINE)
    assert set(listed) == COMMANDS


def test_help_is_instant() -> None:
    program = (
        "import sys; sys.argv = ['fastpubsub', '--help']\n"
        "from fastpubsub.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "import json; print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_both_spellings_of_a_command(run_bare: Run, name: str) -> None:
    for spelling in {name, name.replace("-", "_"), name.replace("_", "-")}:
        assert run_bare(spelling, "--help").returncode == 0


def test_version(tmp_path: Path) -> None:
    """Of the command as it is installed; other tests run warm ones."""
    done = subprocess.run([harness.COMMAND, "--version"], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_the_script_of_the_spec(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "fastpubsub/main.py", "generate_secret_key"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout[:11]) == (0, "new_secret=")


def test_a_new_secret_key_needs_nothing_and_is_good_enough(run_bare: Run) -> None:
    done = run_bare("generate_secret_key", auth_enabled="true", database_url="nonsense")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"new_secret=[0-9a-f]{64}\n", done.stdout)
    assert done.stdout != run_bare("generate_secret_key").stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["create_client"], ["server", "--nonsense"], []])
def test_wrong_usage(run_bare: Run, arguments: list[str]) -> None:
    assert run_bare(*arguments).returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["server"],
        ["db-migrate"],
        ["db-spread"],
        ["cleanup_acked_messages"],
        ["cleanup_stuck_messages"],
        ["create_client", "n"],
        ["doctor"],
    ],
)
def test_without_a_database_url(run_bare: Run, arguments: list[str]) -> None:
    done = run_bare(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "fastpubsub: this needs a database: set FASTPUBSUB_DATABASE_URL=postgresql+psycopg://user:password@host:5432"
        "/database in the environment or in .env; `fastpubsub dev` needs none\n"
    )


def test_wrong_settings(run_bare: Run) -> None:
    done = run_bare("server", api_port="abc", log_level="loud")
    assert (done.returncode, done.stdout) == (2, "")
    assert set(done.stderr.splitlines()) == {
        "fastpubsub: FASTPUBSUB_API_PORT: 'abc' is not a whole number between 0 and 65535",
        "fastpubsub: FASTPUBSUB_LOG_LEVEL: 'loud' is not one of debug, info, warning, error, critical",
    }


def test_a_broken_database_url_is_not_repeated(run_bare: Run) -> None:
    done = run_bare("db-migrate", database_url="postgresql://user:hunter2@host:port/name")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fastpubsub: FASTPUBSUB_DATABASE_URL: ")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["db-migrate"],
        ["db-spread"],
        ["db-spread", "--status"],
        ["cleanup_acked_messages"],
        ["cleanup_stuck_messages"],
        ["create_client", "name"],
    ],
)
def test_a_database_that_is_down(run_bare: Run, arguments: list[str]) -> None:
    done = run_bare(*arguments, database_url=f"postgresql://user:hunter2@127.0.0.1:{harness.free_port()}/name")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fastpubsub: the database cannot be reached")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


def test_migrating_twice(run: Run, empty_database_url: str) -> None:
    first = run("db-migrate", database_url=empty_database_url)
    again = run("db_migrate", database_url=empty_database_url)
    assert (first.returncode, again.returncode) == (0, 0)
    assert "it was at none" in first.stderr
    assert first.stderr.partition(",")[0] == again.stderr.partition(",")[0]


def test_commands_on_a_database_without_the_schema(run: Run, empty_database_url: str) -> None:
    done = run("cleanup_acked_messages", database_url=empty_database_url)
    assert done.returncode == 1
    assert "db-migrate" in done.stderr


def test_a_created_client_is_printed_and_stored(run: Run, database_url: str) -> None:
    done = run("create_client", "My Application", "topics:create topics:read", "true")
    assert (done.returncode, done.stderr) == (0, "")
    printed = re.fullmatch(r"client_id=([0-9a-f-]{36})\nclient_secret=(\S{16,})\n", done.stdout)
    assert printed is not None
    with psycopg.connect(harness.libpq(database_url)) as connection:
        row = connection.execute("select id::text, name, scopes, is_active from fastpubsub.clients").fetchone()
    assert row == (printed[1], "My Application", "topics:create topics:read", True)


def test_scopes_and_activity_have_defaults(run: Run, database_url: str) -> None:
    run("create_client", "all")
    run("create-client", "inactive", "topics:read", "false")
    with psycopg.connect(harness.libpq(database_url)) as connection:
        rows = connection.execute("select name, scopes, is_active from fastpubsub.clients order by name").fetchall()
    assert rows == [("all", "*", True), ("inactive", "topics:read", False)]


@pytest.mark.parametrize("arguments", [["", "*"], ["name", "topics:fly"], ["name", "*", "perhaps"], ["a\nb", "*"]])
def test_clients_that_cannot_be(run: Run, arguments: list[str]) -> None:
    done = run("create_client", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_cleaning_up_says_what_it_did(run: Run) -> None:
    acked = run("cleanup_acked_messages", cleanup_acked_messages_older_than_seconds=7)
    assert (acked.returncode, acked.stdout) == (0, "")
    assert acked.stderr == "deleted 0 settled messages older than 7 seconds\n"
    stuck = run("cleanup_stuck_messages")
    assert (stuck.returncode, stuck.stdout) == (0, "")
    assert stuck.stderr == (
        "released 0 messages past their ack deadline; 0 of them had no attempts left and are dead letters now\n"
    )


def test_healthcheck(run: Run, server: harness.Server) -> None:
    port = server().base_url.rpartition(":")[2]  # type: ignore[operator]
    deadline = time.monotonic() + harness.START_SECONDS
    while run("healthcheck", api_port=port).returncode != 0:  # a busy machine takes longer than readiness waits
        assert time.monotonic() < deadline
    nobody = run("healthcheck", api_port=harness.free_port())
    assert nobody.returncode == 1
    assert nobody.stderr.startswith("fastpubsub: no answer from 127.0.0.1 port ")


class Dev:
    """`fastpubsub dev` with variables in its environment that it must not heed."""

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        reading, writing = os.pipe()
        self.process = warm.Process(
            ["dev", "--port", str(port), *arguments],
            cwd=folder,
            env=harness.environment({"auth_enabled": True, "database_url": "mysql://ignored", "log_requests": False}),
            stdout=writing,
            stderr=writing,
        )
        os.close(writing)
        self.output = os.fdopen(reading)

    def welcome(self) -> list[str]:
        """The lines up to the last of the welcome, which comes when requests are answered."""
        lines: list[str] = []
        for line in self.output:
            lines.append(line)
            if "Ctrl-C" in line:
                return lines
        raise AssertionError("".join(lines))


@contextmanager
def dev(folder: Path, port: int, *arguments: str) -> Iterator[Dev]:
    started = Dev(folder, port, *arguments)
    try:
        yield started
    finally:
        with started.output:
            started.process.send_signal(signal.SIGTERM)
            rest = started.output.read()
            assert started.process.wait(harness.START_SECONDS) == 0, rest


@pytest.mark.long
def test_dev_works_as_printed_and_keeps_its_data(tmp_path: Path) -> None:
    port = harness.free_port()
    with dev(tmp_path, port) as first:
        lines = [line for line in first.welcome() if line.startswith("curl ")]
        assert len(lines) == 3
        first_url = (tmp_path / ".fastpubsub/url").read_text().strip()
        answers = [
            subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout for line in lines
        ]
    topic, subscription = (json.loads(line) for line in answers[0].splitlines())
    assert (topic["id"], subscription["topic_id"]) == ("demo", "demo")
    (published,) = json.loads(answers[1])["ids"]
    (pulled,) = json.loads(answers[2])["data"]
    assert (pulled["id"], pulled["payload"]) == (published, {"hello": "world"})
    assert (tmp_path / ".fastpubsub/cluster/PG_VERSION").exists()
    assert not (tmp_path / ".fastpubsub/cluster/postmaster.pid").exists()
    with dev(tmp_path, port) as second:
        second.welcome()
        url = (tmp_path / ".fastpubsub/url").read_text().strip()
        assert url == first_url
        with psycopg.connect(harness.libpq(url)) as connection:
            assert connection.execute("select id from fastpubsub.topics").fetchall() == [("demo",)]
        assert httpx.get(f"http://127.0.0.1:{port}/topics/demo").status_code == 200
    assert not (tmp_path / ".fastpubsub/url").exists()
    with dev(tmp_path, port, "--reset") as third:
        third.welcome()
        assert httpx.get(f"http://127.0.0.1:{port}/topics").json() == {"data": []}


def test_dev_with_authentication_and_a_shop(tmp_path: Path, empty_database_url: str) -> None:
    port = harness.free_port()
    url = f"http://127.0.0.1:{port}"
    with dev(tmp_path, port, "--database-url", empty_database_url, "--auth", "--demo") as started:
        shown = "".join(started.welcome())
        assert shown.index(f"{url}/console") < shown.index(f"{url}\n")
        found = {name: re.search(rf"{name} +(\S+)", shown) for name in ("Client", "Secret")}
        assert httpx.get(f"{url}/topics").status_code == 401
        with Client(url, *(match[1] for match in found.values() if match)) as bus:
            deadline = time.monotonic() + harness.START_SECONDS
            while len(bus.list_subscriptions()) < 6 or not bus.metrics("billing").acked:
                assert time.monotonic() < deadline
                time.sleep(0.1)


def test_dev_on_a_given_database(tmp_path: Path, empty_database_url: str) -> None:
    port = harness.free_port()
    with dev(tmp_path, port, "--database-url", empty_database_url) as started:
        assert "--database-url" in "".join(started.welcome())
        assert httpx.get(f"http://127.0.0.1:{port}/topics").status_code == 200
        started.process.send_signal(signal.SIGINT)
        assert started.process.wait(harness.START_SECONDS) == 0
    assert not (tmp_path / ".fastpubsub").exists()


@pytest.mark.parametrize("command", ["dev", "server"])
@pytest.mark.parametrize("folder", ["/etc/passwd", "/proc/nowhere"])
def test_a_folder_of_metrics_that_is_none(
    run: Run, monkeypatch: pytest.MonkeyPatch, server_url: str, command: str, folder: str
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", folder)
    given = ["--database-url", server_url] if command == "dev" else []
    done = run(command, *given, api_port=harness.free_port(), api_host="127.0.0.1")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"fastpubsub: PROMETHEUS_MULTIPROC_DIR: {folder} cannot be used: .*\n", done.stderr)


@pytest.mark.parametrize("command", ["dev", "server"])
def test_a_port_that_is_taken(run: Run, tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(command, api_host="127.0.0.1", api_port=port)
    assert done.returncode == 1
    assert done.stderr == (
        f"fastpubsub: cannot listen on 127.0.0.1 port {port}: Address already in use; choose another port\n"
    )
    assert not (tmp_path / ".fastpubsub").exists()
