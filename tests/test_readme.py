"""What README.md tells a newcomer to type works as it is printed."""

import re
from pathlib import Path

import httpx

from tests.conftest import StartServer
from tests.pages import ROOT, Shell, blocks, walk

README = ROOT / "README.md"


def test_its_requests(server: StartServer, tmp_path: Path) -> None:
    walk(README, Shell(tmp_path, {}, {"localhost:8000": httpx.URL(server().base_url).netloc.decode()}))


def test_its_commands_exist() -> None:
    typed = [line for block in blocks(README) if block.language == "sh" for line in block.text.splitlines()]
    targets = {target for line in typed for target in re.findall(r"^make ([\w-]+)", line)}
    assert targets == {"run", "test", "check"}
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_a_newcomer_can_read_it() -> None:
    assert len(README.read_text().splitlines()) < 300
