"""Checks the nodes that topics are spread over. Says nothing where there is one PostgreSQL."""

import asyncio

from fastpubsub.database import migrations, spreading
from fastpubsub.doctor.connection import DoctorConnection
from fastpubsub.doctor.findings import Finding, ok, problem, warning

CLOCKS_APART_SECONDS = 1.0


async def examine_nodes(database: DoctorConnection) -> list[Finding]:
    if not (await database.ask(spreading.TOPICS_BY_NODE[0].decode()))[0][0]:
        return []
    url = database.settings.database_url
    state, left = await asyncio.to_thread(migrations.spread_state, url.get_secret_value() if url else "")
    if not state.is_spread:
        return [ok("nodes", spreading.described(state))]
    answers = await database.ask(spreading.CLOCKS)
    return [*judge_nodes(answers), *judge_steps(state, left)]


def judge_nodes(answers: list[tuple[str, float | None]]) -> list[Finding]:
    """Of addresses with the time there, None where nobody answers; all were asked at once."""
    away = [address for address, time in answers if time is None]
    times = [time for _, time in answers if time is not None]
    found = [
        problem(
            "nodes",
            f"the node {address} does not answer",
            "calls for its topics are answered with 503, and lists leave them out",
            spreading.WHEN_AWAY,
        )
        for address in away
    ]
    apart = max(times, default=0.0) - min(times, default=0.0)
    if apart > CLOCKS_APART_SECONDS:
        found.append(
            warning(
                "clocks",
                f"the clocks of the nodes are {apart:.1f} s apart",
                "delays and deadlines follow the clock of the node of their topic, and the work on them another one",
                "let NTP keep the clocks of all nodes",
            )
        )
    return found or [ok("nodes", f"{len(answers)} nodes answer, and their clocks agree")]


def judge_steps(state: spreading.State, left: list[spreading.Step]) -> list[Finding]:
    if not left:
        return [ok("topics", spreading.described(state))]
    return [
        warning(
            "topics",
            f"{len(left)} tables and functions are not spread",
            "calls that need them fail, or run on the coordinator",
            "fastpubsub db-spread",
        )
    ]
