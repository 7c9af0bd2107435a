"""Requests made from the OpenAPI document, right and wrong, are answered as it says: a bounded run of schemathesis."""

import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests import fuzz
from tests.conftest import Run, StartServer

SEED = 20
EXAMPLES = 3
"""For each operation and way to make requests; `make torture` makes many more, and without authentication."""

KEY = "0123456789abcdef" * 4


@pytest.mark.long
def test_the_server_does_what_its_document_says(server: StartServer, run: Run, tmp_path: Path) -> None:
    settings = {"auth_enabled": True, "auth_secret_key": KEY}
    started = server(**settings)
    printed = run("create_client", "fuzzer", "*", **settings).stdout
    client_id, secret = re.findall(r"(?:client_id|client_secret)=(\S+)", printed)
    body = {"client_id": client_id, "client_secret": secret}
    token = httpx.post(f"{started.base_url}/oauth/token", json=body).raise_for_status().json()["access_token"]
    command = fuzz.command(started.base_url, EXAMPLES, SEED, token)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in started.output()
    assert token not in started.output()
