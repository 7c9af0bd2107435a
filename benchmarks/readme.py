"""The results section of README.md."""

import shutil
from pathlib import Path

README = Path(__file__).with_name("README.md")
PLOT = Path(__file__).with_name("results.png")
BEGIN = "<!-- results: written by python -m benchmarks --write-readme -->"
END = "<!-- end of results -->"
PEERS_BEGIN = "<!-- peers: written by python -m benchmarks.peers --write-readme -->"
PEERS_END = "<!-- end of peers -->"


def write(text: str, plot: Path) -> None:
    picture = ""
    if plot.exists():
        shutil.copyfile(plot, PLOT)
        picture = f"![Throughput, memory and latency over time]({PLOT.name})\n\n"
    _replace(BEGIN, f"```\n{text}\n```\n\n{picture}", END)


def write_peers(text: str) -> None:
    _replace(PEERS_BEGIN, f"{text}\n", PEERS_END)


def _replace(begin: str, text: str, end: str) -> None:
    before, _, rest = README.read_text().partition(begin)
    _, _, after = rest.partition(end)
    README.write_text(f"{before}{begin}\n\n{text}{end}{after}")
