"""The results section of README.md."""

import shutil
from pathlib import Path

README = Path(__file__).with_name("README.md")
PLOT = Path(__file__).with_name("results.png")
BEGIN = "<!-- results: written by python -m benchmarks --write-readme -->"
END = "<!-- end of results -->"


def write(text: str, plot: Path) -> None:
    picture = ""
    if plot.exists():
        shutil.copyfile(plot, PLOT)
        picture = f"![Throughput, memory and latency over time]({PLOT.name})\n\n"
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n\n```\n{text}\n```\n\n{picture}{END}{after}")
