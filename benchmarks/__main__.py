"""`python -m benchmarks`: measures, prints the table, keeps it in benchmarks/results."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import load, machine, readme, report
from benchmarks.bench import PROFILER_COMES_FROM, Bench, requests_per_second
from benchmarks.errors import BenchmarkError
from benchmarks.meter import watch_neighbours
from benchmarks.pairs import interleave, ratio
from benchmarks.plan import LONG, NORMAL, QUICK, Plan
from benchmarks.results import Results
from benchmarks.rows import ROWS
from benchmarks.stack import Cluster, start_noop
from benchmarks.verify import verify
from fastpubsub.embedded import EmbeddedError

RESULTS = Path(__file__).parent / "results"
PLOT_NEEDS = "no plot, it needs matplotlib: pip install matplotlib"


def main() -> int:
    arguments = _parse()
    if arguments.write_readme:
        readme.write(*_newest())
        return 0
    try:
        load.find("wrk", load.WRK_COMES_FROM)
        if arguments.profile:
            load.find("py-spy", PROFILER_COMES_FROM)
        plan = replace(arguments.plan, backlog=arguments.backlog or arguments.plan.backlog)
        results = measure(plan, arguments.rows, arguments.folder, RESULTS if arguments.profile else None)
    except (BenchmarkError, EmbeddedError) as error:
        _say(f"no figures: {error}")
        return 1
    print("\n" + report.text(results))
    _keep(results, arguments.plan)
    return 1 if results.is_void or results.failures or not results.is_whole else 0


def measure(plan: Plan, rows: list[str], parent: Path | None = None, profiles: Path | None = None) -> Results:
    now = datetime.now(UTC)
    pairs = f"{plan.pairs} to {plan.most_pairs}" if plan.most_pairs else f"{plan.pairs}"
    title = f"{plan.name}, {now:%Y-%m-%d %H:%M} UTC, {pairs} pairs, rounds of {plan.seconds:g} s"
    results = Results(title if plan.is_enough else f"{title}: for a look, too little for a verdict")
    code = machine.fingerprint()
    if profiles is not None:
        profiles.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fastpubsub-benchmark-", dir=parent) as name:
        folder = Path(name)
        with Cluster(folder) as cluster:
            cluster.run_in(plan.run_in_megabytes)
            results.environment = machine.describe(cluster)
            noop = start_noop(folder)
            bench = Bench(plan, folder, cluster, noop, results, profiles)
            try:
                with watch_neighbours([cluster.process, noop.process]) as neighbours:
                    _all(bench, rows)
            finally:
                bench.close()
                noop.stop()
    results.environment["others on this machine"] = (
        f"used {neighbours.others:.1%} of the cores, the host took {neighbours.stolen:.1%}"
    )
    results.code_changed = machine.fingerprint() != code
    return results


def _all(bench: Bench, rows: list[str]) -> None:
    _attempt(bench, "the no-op route", lambda: _compare_noop(bench))
    for row in rows:
        started = time.monotonic()
        _say(f"{row} …")
        _attempt(bench, row, lambda row=row: _measure(bench, row))  # type: ignore[misc]
        _say(f"  {time.monotonic() - started:.0f} s")
    _say("loss and duplicates …")
    _attempt(bench, "loss and duplicates", lambda: verify(bench))
    _attempt(bench, "the no-op route", lambda: _compare_noop(bench))


def _attempt(bench: Bench, name: str, measure_it: Callable[[], None]) -> None:
    """Whatever goes wrong says so in the place of its figures, and the others are worth having."""
    try:
        measure_it()
    except Exception as error:  # noqa: BLE001 - the run fails in the end, and tells all that it has found
        reason = str(error) if isinstance(error, BenchmarkError) else f"{type(error).__name__}: {error}"
        bench.results.failures.append(f"{name}: {reason}")
        _say(f"  no figure: {reason}")


def _measure(bench: Bench, row: str) -> None:
    found = ROWS[row](bench)
    bench.results.measures += found
    for one in found:
        _say(f"  {report.line(one)}")


def _compare_noop(bench: Bench) -> None:
    arm = requests_per_second(bench.noop_run())
    plan = bench.plan
    one, other = interleave([arm, arm], plan.pairs, min(plan.seconds, 2.0), min(plan.warm_up_seconds, 1.0))
    bench.results.noop.append(ratio(one, other))


def _keep(results: Results, plan: Plan) -> None:
    RESULTS.mkdir(exist_ok=True)
    name = f"{plan.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    report.save_json(results, RESULTS / f"{name}.json")
    drawn = report.save_plot(results, RESULTS / f"{name}.png")
    _say(f"kept in {RESULTS / name}.json" + (" and .png" if drawn else f" ({PLOT_NEEDS})"))


def _newest() -> tuple[str, Path]:
    """Text and plot of the last run; not of a quick one, which is for looking and not for keeping."""
    found = [path for plan in (NORMAL, LONG) for path in RESULTS.glob(f"{plan.name}-2*.json")]
    if not found:
        raise SystemExit(f"there is no result in {RESULTS}: run make bench first")
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text())["text"], newest.with_suffix(".png")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    plans = parser.add_mutually_exclusive_group()
    parser.set_defaults(plan=NORMAL)
    plans.add_argument("--quick", dest="plan", action="store_const", const=QUICK, help="three minutes, for looking")
    plans.add_argument("--long", dest="plan", action="store_const", const=LONG, help="hours, the long way")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="only these rows of the table")
    parser.add_argument("--backlog", type=int, help="messages that wait in the rows which need many, such as 10000000")
    parser.add_argument("--folder", type=Path, help="where the database stores; the figures depend on this disk")
    parser.add_argument("--profile", action="store_true", help="flame graphs of the worker (needs py-spy)")
    parser.add_argument("--write-readme", action="store_true", help="the newest result, into README.md")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
