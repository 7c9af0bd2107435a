"""pgbouncer in front of a PostgreSQL, where the system has it installed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastpubsub.database.urls import normalise
from tests.harness import free_port

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
START_SECONDS = 60.0


@contextmanager
def running(url: str, pool_size: int = 2, mode: str = "transaction", ignored: str = "") -> Iterator[str]:
    """The URL of the same database behind a pgbouncer with that many connections; `ignored`: start-up parameters."""
    assert PROGRAM is not None
    target = normalise(url)
    host = str(target.query.get("host") or target.host or "127.0.0.1")
    account: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root, and must get into the folder of the socket
        owner = Path(host).stat().st_uid if host.startswith("/") else pwd.getpwnam("nobody").pw_uid
        account = {"user": owner, "group": pwd.getpwuid(owner).pw_gid, "extra_groups": []}
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="fastpubsub-pgbouncer-", dir="/tmp"))
    folder.chmod(0o755)
    password = f" password={target.password}" if target.password else ""
    (folder / "pgbouncer.ini").write_text(
        f"""
[databases]
* = host={host} port={target.query.get("port") or target.port or 5432} user={target.username}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
ignore_startup_parameters = {ignored}
default_pool_size = {pool_size}
max_client_conn = 200
"""
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, folder / "pgbouncer.ini"], cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, **account
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
            if process.returncode is not None or time.monotonic() > deadline:
                raise AssertionError((folder / "log").read_text())
        yield target.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)
