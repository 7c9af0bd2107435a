"""A few rows of the campaign and a mix of faults, on running systems: nothing is lost, invented, torn, or doubled."""

import pytest

from tests.faults import campaign
from tests.faults.campaign import Fault
from tests.faults.rows import FAULTS

SEED = 1
SECONDS = 8
"""For the faults of one row; `make torture` takes as long as it takes."""


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=fault.row) for fault in FAULTS if fault.quick and fault.possible]
)
async def test_what_is_promised_holds(fault: Fault) -> None:
    result = await campaign.run(fault, fault.quick, SEED, seconds=SECONDS)
    assert result.problems == []
    assert result.runs


def test_rows_have_names_of_their_own() -> None:
    assert len({fault.row for fault in FAULTS}) == len(FAULTS)
