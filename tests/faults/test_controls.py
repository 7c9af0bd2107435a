"""Defects in a running system are found: by the load and the checker that find none in the real one."""

import pytest

from tests.faults import campaign
from tests.faults.campaign import Fault
from tests.faults.controls import CONTROLS

SEED = 7


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("fault", "kinds"), CONTROLS, ids=[fault.title for fault, _ in CONTROLS])
async def test_a_defect_is_found(fault: Fault, kinds: set[str]) -> None:
    result = await campaign.run(fault, fault.runs, SEED)
    assert kinds <= {problem.partition(":")[0] for problem in result.problems}, result
