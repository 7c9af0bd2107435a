"""What README.md tells a newcomer to type works as it is printed."""

import re
from pathlib import Path

import httpx

from tests.conftest import StartServer
from tests.pages import ROOT, Shell, blocks, walk

README = ROOT / "README.md"


def test_its_requests_and_its_worker(server: StartServer, tmp_path: Path) -> None:
    url = httpx.URL(server().base_url)
    shell = Shell(tmp_path, {}, {"localhost:8000": url.netloc.decode()})
    walk(README, shell)
    (program,) = (block for block in blocks(README) if block.language == "python")
    (command,) = (block.text for block in blocks(README) if block.text.startswith(".venv/bin/fastpubsub worker"))
    assert len(program.text.splitlines()) == 12
    (tmp_path / "billing.py").write_text(program.text.replace("http://localhost:8000", str(url)))
    with shell.start(f"exec {command.removeprefix('.venv/bin/')}") as worker:
        worker.wait_until(lambda: httpx.get(url.join("/subscriptions/billing/metrics")).json()["acked"] == 2)
    assert "billing order 2" in worker.output().splitlines()


def test_its_commands_exist() -> None:
    typed = [line for block in blocks(README) if block.language == "sh" for line in block.text.splitlines()]
    targets = {target for line in typed for target in re.findall(r"^make ([\w-]+)", line)}
    assert targets == {"run", "test", "check"}
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_a_newcomer_can_read_it() -> None:
    assert len(README.read_text().splitlines()) < 300
