"""Defects in a running system are found: by the load and the checker that find none in the real one."""

import asyncio

import pytest

from tests.faults import campaign
from tests.faults.campaign import Fault
from tests.faults.controls import CONTROLS

SEEDS = (7, 8, 9)
"""A defect loses something only when a moment is bad enough: the first run finds everything nearly always."""


async def test_defects_are_found(subtests: pytest.Subtests) -> None:
    """All at once: each waits most of the time, for leases that end and for what is drained."""
    missed = await asyncio.gather(*(run_until_found(fault, kinds) for fault, kinds in CONTROLS))
    for (fault, _), kinds in zip(CONTROLS, missed, strict=True):
        with subtests.test(fault.title):
            assert kinds == set(), "nobody noticed"


async def run_until_found(fault: Fault, kinds: set[str]) -> set[str]:
    """Those of the kinds of problems that no run has found."""
    for seed in SEEDS:
        result = await campaign.run(fault, fault.runs, seed)
        kinds = kinds - {problem.partition(":")[0] for problem in result.problems}
        if not kinds:
            break
    return kinds
