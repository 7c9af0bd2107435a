"""Detects a pooler before PostgreSQL, and its kind, from its behavior."""

from typing import Any

import psycopg

from fastpubsub.doctor.connection import DoctorConnection, hang_up
from fastpubsub.doctor.findings import Finding, ok, problem, warning

ROUNDS = 5
PROCESS = "select pg_catalog.pg_backend_pid()"


async def find_pooler(database: DoctorConnection) -> str:
    """`none`, `session` or `transaction`.

    A pooler makes up the process id that a client is told for cancelling. In transaction mode two open connections
    are served by the same process in turn, or one by different ones; otherwise neither can be.
    """
    one = await database.connection()
    first = await process(database, one)
    if first == one.info.backend_pid:
        return "none"
    other = await database.connect()
    try:
        for _ in range(ROUNDS):
            if await process(database, other) == first or await process(database, one) != first:
                return "transaction"
    finally:
        await hang_up(other)
    return "session"


async def process(database: DoctorConnection, connection: psycopg.AsyncConnection[Any]) -> int:
    ((number,),) = await database.ask(PROCESS, connection=connection)
    return int(number)


def judge_pooler(found: str, configured: str) -> Finding:
    if found == "transaction" and configured != "transaction":
        return problem(
            "pooler",
            "there is a pooler in transaction mode, and FASTPUBSUB_DATABASE_POOLER does not say so",
            "prepared statements fail behind it, and LISTEN receives nothing",
            "set FASTPUBSUB_DATABASE_POOLER=transaction for every server and command",
        )
    if found != "transaction" and configured == "transaction":
        return warning(
            "pooler",
            "FASTPUBSUB_DATABASE_POOLER is transaction, and no pooler in transaction mode is seen",
            "each call is planned again, and waiting consumers notice messages of other servers half a second late",
            "set FASTPUBSUB_DATABASE_POOLER=none",
        )
    return ok("pooler", "there is no pooler" if found == "none" else f"a pooler in {found} mode, as configured")
