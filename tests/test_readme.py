"""What README.md tells a newcomer to type works as it is printed."""

import re
import subprocess
from pathlib import Path

import httpx

from tests.lasting import Last
from tests.pages import DOCS, ROOT, Shell, blocks, walk

README = ROOT / "README.md"


def test_its_requests_and_its_worker(lasting_server: Last, tmp_path: Path) -> None:
    url = httpx.URL(lasting_server().base_url)
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
    assert targets == {"run", "test", "test-long", "check"}
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


PLACEHOLDER = re.compile(r"<[a-z][\w ]*>")


def test_what_is_to_be_typed_can_be_typed() -> None:
    """No shell takes a placeholder in angle brackets, and no index has this package: it is installed by its path."""
    others = {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"}
    installed = []
    for page in [README, *DOCS.glob("*.md"), *ROOT.glob("examples/*/README.md"), *ROOT.glob("deploy/**/*.md")]:
        for block in blocks(page):
            if block.language in ("sh", "bash"):
                assert not PLACEHOLDER.search(block.text), block.place
                for line in re.findall(r"pip install (.+)", block.text):
                    assert "packages/client" in line, block.place
                    installed += [(page, name) for name in line.replace("'", "").split() if name not in others]
    assert len(installed) >= 4
    for page, name in installed:
        folder = ROOT if page.parent == DOCS else page.parent
        path = name.partition("[")[0].replace("../fastpubsub", ".", 1)  # the clone, beside the folder of the reader
        assert (folder / path / "pyproject.toml").exists(), (page, name)


def test_the_first_make_says_what_it_does() -> None:
    command = ["make", "--dry-run", "--always-make", "run"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert -1 < printed.find('echo "installing ') < printed.find("-m venv") < printed.find("fastpubsub dev")


def test_a_newcomer_can_read_it() -> None:
    assert len(README.read_text().splitlines()) < 300
