"""Defects in a running system are found: by the load and the checker that find none in the real one."""

import pytest

from tests.faults import campaign
from tests.faults.campaign import Fault
from tests.faults.controls import CONTROLS

SEEDS = (7, 8, 9)
"""A defect loses something only when a moment is bad enough: the first run finds it nearly always."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("fault", "kinds"), CONTROLS, ids=[fault.title for fault, _ in CONTROLS])
async def test_a_defect_is_found(fault: Fault, kinds: set[str]) -> None:
    results = []
    for seed in SEEDS:
        results.append(result := await campaign.run(fault, fault.runs, seed))
        if kinds <= {problem.partition(":")[0] for problem in result.problems}:
            return
    pytest.fail(f"nobody noticed: {results}")
