"""What is done, row by row of docs/reliability.md."""

from tests.faults.campaign import Fault
from tests.faults.rows import calls, databases, processes

FAULTS: list[Fault] = sorted([*processes.FAULTS, *databases.FAULTS, *calls.FAULTS], key=lambda fault: fault.row)
