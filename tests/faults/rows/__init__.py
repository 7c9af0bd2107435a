"""What is done, row by row of docs/reliability.md."""

from tests.faults.campaign import Fault
from tests.faults.rows import (
    calls,
    crowds,
    databases,
    features,
    inputs,
    keeping,
    mixed,
    operations,
    pressure,
    processes,
    push,
)

_ALL = [processes, databases, calls, operations, pressure, mixed, inputs, push, crowds, features, keeping]
FAULTS: list[Fault] = sorted((fault for module in _ALL for fault in module.FAULTS), key=lambda fault: fault.row)
