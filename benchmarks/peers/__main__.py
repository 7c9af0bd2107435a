"""`python -m benchmarks.peers`: fastpubsub beside what its users would take instead, as a Markdown table."""

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine, readme
from benchmarks.errors import BenchmarkError
from benchmarks.meter import watch_neighbours
from benchmarks.peers import registry
from benchmarks.peers.contender import Contender
from benchmarks.peers.ours import Fastpubsub
from benchmarks.peers.peer import Broker, Peer
from benchmarks.peers.rows import NORMAL, QUICK, ROWS, Plan, Run
from benchmarks.peers.table import Table
from fastpubsub.embedded import EmbeddedError

RESULTS = Path(__file__).parent.parent / "results"
READABLE = 0o755


def main() -> int:
    arguments = _parse()
    if arguments.write_readme:
        readme.write_peers(_newest().read_text())
        return 0
    plan = replace(
        arguments.plan,
        **{name: value for name in ("backlog", "minutes", "size") if (value := getattr(arguments, name))},
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended: no figures"))  # the brokers are stopped on the way out
    peers, left_out = registry.find(arguments.peers)
    with tempfile.TemporaryDirectory(prefix="fastpubsub-peers-", dir=arguments.folder) as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(READABLE)  # brokers that run without the rights of root have folders in it
        contenders = _start(stack, folder, plan, peers, left_out)
        if not contenders:
            _say("nothing to measure: " + "; ".join(left_out.values()))
            return 1
        text, failures = _measure(plan, contenders, arguments.rows, left_out)
    print(text)
    _keep(text, plan)
    return 1 if failures else 0


def _start(
    stack: ExitStack, folder: Path, plan: Plan, peers: dict[str, Peer], left_out: dict[str, str]
) -> list[Contender]:
    """Tells for each that does not start how to get it."""
    brokers: dict[str, Broker] = {}
    contenders = []
    for name, peer in peers.items():
        try:
            owner = peer.shares or name
            if owner not in brokers:
                _say(f"starting {peer.name} …")
                (folder / owner).mkdir(exist_ok=True)
                brokers[owner] = peer.start(folder / owner)
                stack.callback(brokers[owner].stop)
            contender = Contender(name, peer, brokers[owner], plan.size)
        except (BenchmarkError, EmbeddedError) as error:
            left_out[name] = str(error)
            continue
        stack.callback(contender.stop)
        contenders.append(contender)
    for name, reason in left_out.items():
        _say(f"LEFT OUT: {name}: {reason}")
    return contenders


def _measure(
    plan: Plan, contenders: list[Contender], rows: list[str], left_out: dict[str, str]
) -> tuple[str, list[str]]:
    started = datetime.now(UTC)
    run = Run(plan, Table([one.peer.name for one in contenders]), contenders)
    trees = [process for one in contenders for process in (one.publisher.process, one.consumer.process)]
    trees += [process for one in contenders if not one.peer.shares for process in one.broker.processes]
    environment = _environment(contenders)
    with watch_neighbours(trees) as neighbours:
        noise = run.noise()
        for row in rows:
            _say(f"{row} …")
            ROWS[row](run)
    title = f"{plan.name}, {started:%Y-%m-%d %H:%M} UTC, {(datetime.now(UTC) - started).seconds} s"
    lines = [
        f"{title}, {plan.rounds} rounds of {plan.seconds:g} s in turns, payloads of {plan.size} bytes",
        *(f"{name}: {value}" for name, value in environment.items()),
        f"others on this machine used {neighbours.others:.1%} of the cores, the host took {neighbours.stolen:.1%}",
        f"{contenders[0].peer.name} against itself, 16 at once: {', '.join(f'{one:.2f}' for one in noise.values)}",
        *(f"LEFT OUT: {name}: {reason}" for name, reason in left_out.items()),
        *(f"NO FIGURE: {failure}" for failure in run.failures),
    ]
    text = "\n".join(lines)
    return f"```\n{text}\n```\n\n{run.table}\n\n{_settings(contenders)}\n", run.failures


def _settings(contenders: list[Contender]) -> str:
    rows = [f"| {one.peer.name} | {one.peer.versions()} | {one.peer.durability} |" for one in contenders]
    return "\n".join(["| | version | a confirmed publish is |", "|---|---|---|", *rows])


def _environment(contenders: list[Contender]) -> dict[str, str]:
    ours = [one.broker for one in contenders if isinstance(one.broker, Fastpubsub)]
    return machine.describe(ours[0].cluster) if ours else {}


def _keep(text: str, plan: Plan) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{plan.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.md"
    path.write_text(text)
    _say(f"kept in {path}")


def _newest() -> Path:
    """Not of a quick run, which is for looking and not for keeping."""
    found = sorted(RESULTS.glob(f"{NORMAL.name}-2*.md"))
    if not found:
        raise SystemExit(f"there is no result in {RESULTS}: run make bench-peers first")
    return found[-1]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    names = list(registry.MODULES)
    parser.set_defaults(plan=NORMAL)
    parser.add_argument("--quick", dest="plan", action="store_const", const=QUICK, help="two minutes, for looking")
    parser.add_argument("--peers", nargs="+", choices=names, default=names, help="only these")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="only these rows of the table")
    parser.add_argument("--backlog", type=int, help="messages, instead of 1,000,000")
    parser.add_argument("--minutes", type=float, help="for everything, instead of 12")
    parser.add_argument("--size", type=int, help="bytes of a payload, instead of 1,024")
    parser.add_argument("--folder", type=Path, help="where brokers store; the figures depend on this disk")
    parser.add_argument("--write-readme", action="store_true", help="the newest result, into README.md")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
