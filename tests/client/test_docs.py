"""The examples of the pages about the client: each block runs as a reader would run it.

A `python` block that begins with `# name.py` is that file; every other one is a program of its own. `text` right behind
a program is what it prints.
"""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.pages import DOCS, Block, Shell, agree, blocks, canonical

FILE = re.compile(r"# (\w+\.py)\n")


@pytest.fixture
def shell(server: StartServer, tmp_path: Path) -> Shell:
    url = server().base_url
    return Shell(tmp_path, {"url": url}, {"http://localhost:8000": url})


def walk(page: str, shell: Shell) -> None:
    ran = 0
    for block, after in pairwise([*blocks(DOCS / page), Block("", "", "", "")]):
        if block.language != "python":
            continue
        if named := FILE.match(block.text):
            (shell.folder / named[1]).write_text(block.text)
            continue
        printed = shell.run(f"python - <<'PYTHON'\n{block.text}PYTHON\n")
        agree(canonical(after.text if after.language == "text" else ""), canonical(printed), {}, block.place)
        ran += 1
    assert ran, f"nothing on {page} runs"


def test_client(shell: Shell) -> None:
    walk("client.md", shell)
