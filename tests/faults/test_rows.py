"""A few rows of the campaign and a mix of faults, on running systems: nothing is lost, invented, torn, or doubled."""

import pytest

from tests.faults import campaign
from tests.faults.campaign import Fault
from tests.faults.rows import FAULTS, calls, features, keeping
from tests.pages import ROOT

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


def test_servers_call_what_is_cut() -> None:
    """A row would wait forever for a procedure that has another name by now."""
    code = "".join(file.read_text() for file in (ROOT / "fastpubsub").rglob("*.py"))
    cut = [*calls.PROCEDURES, *features.PROCEDURES, *keeping.PROCEDURES]
    assert [name for name in cut if f'"{name}"' not in code] == []


def test_rows_have_names_of_their_own() -> None:
    assert len({fault.row for fault in FAULTS}) == len(FAULTS)
