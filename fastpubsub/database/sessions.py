"""Overrides settings of a session from the environment, the role and the database, and checks the rest."""

from collections.abc import Iterable

from fastpubsub.config import Settings

SESSION = {
    "client_encoding": "UTF8",
    "options": " ".join(
        f"-c {setting}"
        for setting in (
            "search_path=pg_catalog,pg_temp",
            "statement_timeout=0",
            "idle_session_timeout=0",
            "idle_in_transaction_session_timeout=0",
        )
    ),
}
"""For every connection; calls have deadlines of their own."""

TIMEOUTS = """
select s.name, s.reset_val::pg_catalog.float8 / 1000
from pg_catalog.pg_settings as s
where s.name in (
    'statement_timeout', 'transaction_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout'
)
"""
"""With which calls begin. Only behind a transaction pooler are there others than the second, which PostgreSQL before 17
does not know, so that it is not switched off."""


def encoding_problem(encoding: str) -> str | None:
    """One sentence about a database that cannot keep every character, None for one that can."""
    if encoding == "UTF8":
        return None
    return (
        f"the encoding of the database is {encoding}, and fastpubsub needs UTF8; make another database with: "
        "create database … encoding 'UTF8' locale 'C' template template0"
    )


def timeout_problem(timeouts: Iterable[tuple[str, float]], settings: Settings) -> str | None:
    """One sentence about a timeout, in seconds, that is shorter than a call may wait for a lock."""
    allowed = settings.database_lock_timeout_seconds
    for name, seconds in timeouts:
        if 0 < seconds < allowed:
            return (
                f"{name} is {seconds:g} s, and calls may wait {allowed:g} s for a lock; "
                "set it to 0 for the role and the database"
            )
    return None
