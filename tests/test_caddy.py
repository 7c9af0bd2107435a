"""Caddy in front of a server, with the file of deploy/."""

import os
import subprocess
import time
from pathlib import Path

import httpx

from tests import harness
from tests.lasting import Last
from tests.pages import ROOT

CADDYFILE = ROOT / "deploy/caddy/Caddyfile"
SECONDS = 60.0
OPTIONS = ("admin off", "skip_install_trust", "grace_period 1s", "auto_https disable_redirects")
"""A test may take no port but its own, and changes nothing of the machine."""


def test_caddy_passes_requests_and_streams_on(lasting_server: Last, tmp_path: Path) -> None:
    upstream, port = httpx.URL(lasting_server().base_url).netloc.decode(), harness.free_port()
    options = "\n".join([*OPTIONS, f"https_port {port}"])
    (tmp_path / "Caddyfile").write_text(f"{{\n{options}\n}}\n{CADDYFILE.read_text()}")
    environment = os.environ | {"UPSTREAM": upstream, "XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)}
    command = ["caddy", "run", "--config", "Caddyfile"]
    with (tmp_path / "log").open("wb") as log:
        caddy = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"https://localhost:{port}", verify=False) as client:
            wait_until_it_answers(client, tmp_path / "log")
            assert client.post("/topics", json={"id": "t"}).status_code == httpx.codes.CREATED
            with client.stream("GET", "/topics/t/stream", timeout=SECONDS) as stream:
                client.post("/topics/t/messages", json=[{"n": 1}])
                assert any('{"n":1}' in line.replace(" ", "") for line in stream.iter_lines())
    finally:
        caddy.terminate()
        caddy.wait(SECONDS)


def wait_until_it_answers(client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not answers(client):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def answers(client: httpx.Client) -> bool:
    """Readiness looks for the database for a third of a second only, which may be too short on a busy machine."""
    try:
        return client.get("/readiness").is_success
    except httpx.TransportError:
        return False
