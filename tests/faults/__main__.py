"""`python -m tests.faults [ROW …]`: the campaign, and one table at its end."""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.faults import campaign
from tests.faults.controls import CONTROLS
from tests.faults.report import table
from tests.faults.rows import FAULTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", help="such as F01 F04b C01; all when none is given")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of runs, such as 0.1")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--save", type=Path, help="a folder for results, histories, and logs of what failed")
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="only print the table of what was saved there")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(saved(arguments.table)))
        return 0
    if unknown := set(arguments.rows) - {fault.row for fault in [*FAULTS, *(control for control, _ in CONTROLS)]}:
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    if arguments.save:
        arguments.save.mkdir(parents=True, exist_ok=True)

    def chosen(fault: campaign.Fault) -> bool:
        return not arguments.rows or fault.row in arguments.rows

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have taken away
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    started = time.monotonic()
    faults = [fault for fault in FAULTS if chosen(fault)]
    results = asyncio.run(run(faults, arguments.scale, arguments.seed, arguments.save))
    controls = [(fault, kinds) for fault, kinds in CONTROLS if chosen(fault)]
    results += asyncio.run(run_controls(controls, arguments.seed, arguments.save))
    print(f"\n{table(results)}\n\nseed {arguments.seed}, {time.monotonic() - started:.0f} s", flush=True)
    return 0 if all(result.passed for result in results) else 1


async def run(faults: list[campaign.Fault], scale: float, seed: int, save_to: Path | None) -> list[campaign.Result]:
    results = []
    for fault in faults:
        if not fault.possible:
            print(f"{fault.row} {fault.title}: left out, this machine or user has not what it takes")
            continue
        result = await campaign.run(fault, max(1, round(fault.runs * scale)), seed, save_to, whole=scale >= 1)
        results.append(report(result, save_to))
    return results


async def run_controls(
    controls: list[tuple[campaign.Fault, set[str]]], seed: int, save_to: Path | None
) -> list[campaign.Result]:
    """Of systems with a defect; who is caught has passed. Nothing of it counts as tried."""
    results = []
    for fault, kinds in controls:
        result = await campaign.run(fault, fault.runs, seed)
        missed = kinds - {problem.partition(":")[0] for problem in result.problems}
        result.title = f"control: {result.title}"
        result.kills = 0
        result.figures = {}
        result.problems = [f"the checker did not find: {', '.join(sorted(missed))}"] if missed else []
        results.append(report(result, save_to))
    return results


def report(result: campaign.Result, save_to: Path | None) -> campaign.Result:
    print(f"{result.row} {result.title}: {result.runs} runs, {result.seconds:.0f} s", *result.problems, sep="\n  ")
    sys.stdout.flush()
    if save_to is not None:
        (save_to / f"{result.row}.json").write_text(json.dumps(asdict(result)))
    return result


def saved(folder: Path) -> list[campaign.Result]:
    """Of several runs, perhaps; a row that was run again counts as it was then."""
    return [campaign.Result(**json.loads(file.read_text())) for file in sorted(folder.glob("*.json"))]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
