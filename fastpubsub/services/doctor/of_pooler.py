"""Whether a pooler is between us and PostgreSQL, and of which kind, judged by what it does."""

from typing import Any

import psycopg

from fastpubsub.services.doctor.findings import Finding, ok, problem, warning
from fastpubsub.services.doctor.patient import Patient, hang_up

ROUNDS = 5
PROCESS = "select pg_catalog.pg_backend_pid()"


async def find_pooler(patient: Patient) -> str:
    """`none`, `session` or `transaction`.

    A pooler makes up the process id that a client is told for cancelling. In transaction mode two open connections
    are served by the same process in turn, or one by different ones; otherwise neither can be.
    """
    one = await patient.connection()
    first = await process(patient, one)
    if first == one.info.backend_pid:
        return "none"
    other = await patient.connect()
    try:
        for _ in range(ROUNDS):
            if await process(patient, other) == first or await process(patient, one) != first:
                return "transaction"
    finally:
        await hang_up(other)
    return "session"


async def process(patient: Patient, connection: psycopg.AsyncConnection[Any]) -> int:
    ((number,),) = await patient.ask(PROCESS, connection=connection)
    return int(number)


def judge_pooler(found: str, configured: str) -> Finding:
    if found == "transaction" and configured != "transaction":
        return problem(
            "pooler",
            "there is a pooler in transaction mode, and FASTPUBSUB_DATABASE_POOLER does not say so",
            "prepared statements fail in it, and LISTEN hears nothing",
            "set FASTPUBSUB_DATABASE_POOLER=transaction for every server and command",
        )
    if found != "transaction" and configured == "transaction":
        return warning(
            "pooler",
            "FASTPUBSUB_DATABASE_POOLER is transaction, and no pooler in transaction mode is seen",
            "calls are planned anew each time, and waiting consumers hear of other servers half a second late",
            "set FASTPUBSUB_DATABASE_POOLER=none",
        )
    return ok("pooler", "no pooler in between" if found == "none" else f"a pooler in {found} mode, as configured")
