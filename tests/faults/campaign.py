"""A fault is a few lines: what is done, how often, to what. Everything else is here."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from tests.faults import stage
from tests.faults.checker import check_index
from tests.faults.history import Kind, in_flight
from tests.faults.index import Index
from tests.faults.rig import BUSY, SOON, Rig, Setup

Figures = Mapping[str, float]
SESSIONS = 17
"""Of one worker at most: 15 in its pool, one that listens, one for readiness."""

MAXIMA = ("_s", "_ms", "_mb")
"""Figures with these units are not added up: the worst counts."""


@dataclass(frozen=True)
class Fault:
    row: str
    title: str
    inject: Callable[[Rig], Awaitable[Figures | None]]
    """One injection, until everything works again; raises AssertionError when it does not."""
    runs: int = 10
    """Of the whole campaign."""
    quick: int = 0
    """In `make test`, at most, which has time for few of them."""
    setup: Setup = field(default_factory=Setup)
    possible: bool = True
    """On this machine."""


@dataclass
class Result:
    row: str
    title: str
    seed: int
    runs: int = 0
    kills: int = 0
    """With enough in flight."""
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.problems

    def add(self, figures: Figures) -> None:
        for name, value in figures.items():
            before = self.figures.get(name, 0)
            self.figures[name] = max(before, value) if name.endswith(MAXIMA) else before + value


async def run(
    fault: Fault, runs: int, seed: int, save_to: Path | None = None, *, whole: bool = False, seconds: float = inf
) -> Result:
    """`whole`: at the size that the campaign has, where that makes a difference. `seconds`: none begins after them."""
    result = Result(fault.row, fault.title, seed)
    started = time.monotonic()
    try:
        async with stage.opened(fault.setup, seed) as rig:
            rig.is_whole = whole
            try:
                with noted(result):
                    await repeat(fault, runs, seconds, rig, result)
                if fault.setup.load:
                    with noted(result):
                        await rig.load.drain()
                        await leave_no_sessions(rig)
            finally:
                judge(rig, result)
                if save_to is not None:
                    rig.history.save(save_to / f"{fault.row}-{seed}.jsonl")
                    if result.problems:
                        logs = [process.output() for process in rig.processes]
                        (save_to / f"{fault.row}-{seed}.log").write_text("\n".join(logs))
    except Exception as error:  # noqa: BLE001 - the rows after it run all the same
        result.problems.append(f"{type(error).__name__}: {error}")
    result.seconds = time.monotonic() - started
    return result


async def repeat(fault: Fault, runs: int, seconds: float, rig: Rig, result: Result) -> None:
    until = time.monotonic() + seconds
    while result.runs < runs and time.monotonic() < until:
        result.add(await fault.inject(rig) or {})
        result.runs += 1
        if fault.setup.load:
            await rig.load.progress(20)


@contextmanager
def noted(result: Result) -> Iterator[None]:
    try:
        yield
    except (AssertionError, TimeoutError) as error:
        result.problems.append(f"after {result.runs} runs: {error!r}")


def judge(rig: Rig, result: Result) -> None:
    for process in rig.processes:
        if "Traceback" in process.output():
            result.problems.append("a server logged a traceback")
    if not rig.setup.load:
        return
    load = rig.load
    found: dict[str, list[str]] = {}
    index = Index(load.plan, load.history)
    for kind, text in check_index(index):
        found.setdefault(kind, []).append(text)
    result.problems += [f"{kind}: {len(texts)}, as {texts[0]}" for kind, texts in found.items()]
    calls = index.calls
    kills = [event.time for event in load.history.notes("kill")]
    result.kills = sum(in_flight(calls, moment) >= BUSY for moment in kills)
    result.add(
        {
            "messages": sum(load.confirmed.values()),
            "acks": sum(load.acked.values()),
            "again": index.repetitions,
            "calls": len(calls),
            "unanswered": sum(call.outcome is Kind.UNKNOWN and call.ended < inf and not call.got for call in calls),
            "503": load.statuses[503],
        }
    )


async def leave_no_sessions(rig: Rig) -> None:
    """No transaction is left open, and there are no more sessions than pools may have."""
    processes = rig.setup.workers * len(rig.servers) + len(rig.pushers)
    query = """
        select count(*), count(*) filter (where state <> 'idle' and pid <> pg_backend_pid())
        from pg_stat_activity where application_name = 'fastpubsub'
    """
    sessions = active = None
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        with suppress(OSError):
            ((sessions, active),) = await rig.query(query)
            if sessions <= processes * SESSIONS and not active:
                return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{sessions} sessions, {active} of them active")
