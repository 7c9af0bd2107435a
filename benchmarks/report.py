"""What a run found, as text, as JSON and as a picture."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from benchmarks.pairs import Spread
from benchmarks.results import NOISE, CostLine, Delivery, Measure, Results

MOST_WAITS = 3
COSTS = ("", "server", "PostgreSQL", "wrk", "commits", "what its connections waited for")
HEADER = ("", "must", "aim", "median", "quartiles", "", "made of")


def text(results: Results) -> str:
    """Everything, for a terminal and for README.md alike."""
    parts = [
        results.title,
        "\n".join(f"{name}: {value}" for name, value in results.environment.items()),
        _noise(results),
        table([HEADER, *map(_measure, results.measures)]),
        "\n".join(f"NO FIGURE for {failure}" for failure in results.failures),
        "Loss and duplicates\n" + "\n".join(map(_delivery, results.deliveries)),
        "Where the time goes, in µs of CPU per message\n" + table([COSTS, *map(_cost, results.costs)]),
        "\n".join(results.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def line(measure: Measure) -> str:
    """For who waits for the next one."""
    if measure.spread is None:
        return f"{measure.name}: {measure.verdict}"
    return f"{measure.name}: {_number(measure.spread.median)} ({_quartiles(measure.spread)}), {measure.figures}"


def save_json(results: Results, path: Path) -> None:
    measures = [{**asdict(one), "verdict": one.verdict} for one in results.measures]
    path.write_text(json.dumps({**asdict(results), "measures": measures, "text": text(results)}, indent=1))


def save_plot(results: Results, path: Path) -> bool:
    """False without matplotlib, or when there is nothing over time to show."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not results.series:
        return False
    figure = Figure(figsize=(9, 2.2 * len(results.series)), layout="constrained")
    panels = figure.subplots(len(results.series), squeeze=False)[:, 0]
    for panel, (name, points) in zip(panels, results.series.items(), strict=True):
        panel.plot([second for second, _ in points], [value for _, value in points], linewidth=1)
        panel.set_ylim(0, max(value for _, value in points) * 1.1)
        panel.set_ylabel(name, fontsize=8)
        panel.grid(visible=True, linewidth=0.3)
    panels[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=120)
    return True


def table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _noise(results: Results) -> str:
    lowest, highest = NOISE
    found = ", ".join(f"{spread.median:.3f} ({_quartiles(spread)})" for spread in results.noop)
    sentence = f"The no-op route against itself: {found}"
    if results.code_changed:
        sentence += "\nVOID: the program was changed while it was measured; leave the files alone"
    elif results.is_void:
        sentence += (
            f"\nVOID: it must lie within {lowest} and {highest}; these figures do not count, make the machine quiet"
        )
    return sentence


def _measure(measure: Measure) -> tuple[str, ...]:
    must, aim = f"{measure.must:,g}", f"{measure.aim:,g}"
    if measure.spread is None:
        return measure.name, must, aim, "", "", measure.verdict, measure.figures
    median = _number(measure.spread.median)
    return measure.name, must, aim, median, _quartiles(measure.spread), measure.verdict, measure.figures


def _quartiles(spread: Spread) -> str:
    return " to ".join(map(_number, spread.quartiles))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _delivery(delivery: Delivery) -> str:
    twice = "" if delivery.twice is None else f", {delivery.twice:,} delivered twice"
    return f"  {delivery.name}: {delivery.published:,} published, {delivery.lost:,} lost{twice}"


def _cost(line: CostLine) -> tuple[str, ...]:
    waits = ", ".join(f"{wait} {share:.0%}" for wait, share in list(line.waits.items())[:MOST_WAITS])
    times = (f"{value:,.1f}" for value in (line.server, line.postgres, line.generator))
    return line.name, *times, f"{line.transactions:.4f}", waits
