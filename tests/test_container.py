"""What the image and the examples of deploy/ ask of a container engine, made of namespaces.

A user that is not root, without capabilities or a way to get any, on a file system that is read-only but for /tmp.
"""

import asyncio
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

import fastpubsub
from tests import harness
from tests.attacks import KEY
from tests.proxy import Proxy

USER = 10001
TMP = Path("/tmp")
NEEDED = {Path(fastpubsub.__file__).parents[1], Path(sys.prefix), Path(sys.base_prefix)}
HIDDEN = [shlex.quote(str(one)) for one in sorted(NEEDED) if TMP in one.parents]
"""What the command needs, and the container's own /tmp would hide."""

KEEP = "\n".join(f"mkdir /mnt/{n} && mount --bind {one} /mnt/{n}" for n, one in enumerate(HIDDEN))
SHOW = "\n".join(f"mkdir -p {one} && mount --bind /mnt/{n} {one}" for n, one in enumerate(HIDDEN))
INSIDE = f"""
mount -o remount,bind,ro /
mount -t tmpfs tmpfs /mnt
{KEEP}
mount -t tmpfs -o size=16m tmpfs /tmp
{SHOW}
mount -o remount,bind,ro /mnt
cd /tmp
exec unshare --user --map-user={USER} --map-group={USER} setpriv --no-new-privs "$@"
"""
CONTAINER = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", INSIDE, "sh"]


def run(*command: str, url: str = "") -> subprocess.CompletedProcess[str]:
    environment = harness.environment({"database_url": url or None})
    return subprocess.run([*CONTAINER, *command], env=environment, capture_output=True, text=True, timeout=200)


def test_the_container_is_one() -> None:
    """Else the test below proves nothing."""
    assert run("id", "-u").stdout == f"{USER}\n"
    assert "CapEff:\t0000000000000000\n" in run("cat", "/proc/self/status").stdout
    assert run("touch", "/tmp/file").returncode == 0
    for place in (Path(fastpubsub.__file__).parent, harness.COMMAND.parent, Path("/etc"), Path("/var")):
        assert "Read-only file system" in run("touch", f"{place}/file").stderr
    # A home below /tmp is hidden.
    run("touch", f"{Path.home()}/of-the-container")
    assert not (Path.home() / "of-the-container").exists()
    assert run("mount", "-o", "remount,rw", "/").returncode != 0


def check_processes(master: psutil.Process) -> None:
    for process in (master, *master.children(recursive=True)):
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "CapEff:\t0000000000000000\n" in status
        assert "NoNewPrivs:\t1\n" in status


@pytest.mark.long
async def test_everything_runs_in_it(empty_database_url: str, tmp_path: Path) -> None:
    async with Proxy(empty_database_url) as proxy:
        migrated = await asyncio.to_thread(run, str(harness.COMMAND), "db-migrate", url=proxy.url)
        assert migrated.returncode == 0, migrated.stderr
        settings = {"database_url": proxy.url, "api_num_workers": 2, "auth_enabled": True, "auth_secret_key": KEY}
        started = harness.start_server(["server"], tmp_path, settings, command=[*CONTAINER, harness.COMMAND])
        try:
            await asyncio.to_thread(started.wait_until_ready)
            check_processes(psutil.Process(started.process.pid))
            async with httpx.AsyncClient(base_url=started.base_url, timeout=30) as client:
                assert (await client.get("/docs")).status_code == 200
                assert (await client.get("/topics")).status_code == 401
                assert "http_requests_total" in (await client.get("/metrics")).text
            created = await asyncio.to_thread(run, str(harness.COMMAND), "create_client", "name", url=proxy.url)
            assert "client_secret=fps_" in created.stdout, created.stderr
        finally:
            assert await asyncio.to_thread(started.stop) == 0
        assert "Traceback" not in started.output()
