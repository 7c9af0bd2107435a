"""Checks whether the database is reliable, over a connection that nothing else uses."""

import contextlib
import logging
from typing import Any

import psycopg

from fastpubsub.config import Settings
from fastpubsub.database import migrations
from fastpubsub.database.connections import Connector, cut_after
from fastpubsub.database.sessions import TIMEOUTS, encoding_problem, timeout_problem

logger = logging.getLogger(__name__)

DOWN = "database is down"
PROBE_SECONDS = 5.0
DURABILITY = ("fsync", "full_page_writes")

STATE = f"""
select
    pg_catalog.pg_is_in_recovery(),
    pg_catalog.current_setting('transaction_read_only'),
    pg_catalog.current_setting('default_transaction_isolation'),
    pg_catalog.current_setting('server_encoding'),
    array[{", ".join(f"pg_catalog.current_setting('{name}')" for name in DURABILITY)}],
    pg_catalog.to_regclass('fastpubsub.alembic_version') is not null
"""
REVISION = "select version_num from fastpubsub.alembic_version"


async def log_problem(settings: Settings) -> None:
    """Logs once, before a server starts; it starts anyway, and is ready when the problem is gone."""
    readiness = Readiness(settings)
    try:
        await readiness.problem()
    finally:
        await readiness.close()


class Readiness:
    """Keeps one connection, so that it also works when the pool or the server has none left to give."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connector = Connector(settings)
        self._durability = DURABILITY if settings.database_require_durability else ()
        self._revision = migrations.head()
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._logged: str | None = None

    async def problem(self) -> str | None:
        """A sentence, or None when everything is as it must be. One call at a time."""
        try:
            reason = await self._look()
            detail = reason
        except (psycopg.Error, OSError) as error:
            await self.close()
            reason = DOWN
            detail = f"{DOWN}: {str(error).strip().partition(chr(10))[0]}"
        self._log(reason, detail)
        return reason

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()

    async def _look(self) -> str | None:
        if self._connection is None:
            self._connection = await self._connector.connect()
        with cut_after(PROBE_SECONDS, self._connection):
            return await self._judge(self._connection)

    async def _judge(self, connection: psycopg.AsyncConnection[Any]) -> str | None:
        cursor = await connection.execute(STATE, prepare=False)
        (row,) = await cursor.fetchall()
        standby, read_only, isolation, encoding, durability, migrated = row
        if standby:
            return "the database is a standby and accepts no writes; use the address of the primary"
        if read_only == "on":
            return "the database is read-only; see its default_transaction_read_only"
        if isolation != "read committed":
            return (
                f"the database's default isolation is {isolation}; set default_transaction_isolation to read committed"
            )
        if unfit := encoding_problem(encoding) or self._judge_durability(durability):
            return unfit
        cursor = await connection.execute(TIMEOUTS, prepare=False)
        if unfit := timeout_problem(await cursor.fetchall(), self._settings):
            return unfit
        if not migrated:
            return "the database has no fastpubsub schema; run: fastpubsub db-migrate"
        cursor = await connection.execute(REVISION, prepare=False)
        found = [revision for (revision,) in await cursor.fetchall()]
        if found != [self._revision]:
            return (
                f"the schema is at revision {', '.join(found) or 'none'} and this version needs {self._revision}; "
                "run: fastpubsub db-migrate, or install the newer version that migrated it"
            )
        return None

    def _judge_durability(self, durability: list[str]) -> str | None:
        for name, value in zip(DURABILITY, durability, strict=True):
            if name in self._durability and value != "on":
                return (
                    f"the database may lose confirmed messages: {name} is {value}; set it to on, or "
                    "FASTPUBSUB_DATABASE_REQUIRE_DURABILITY=false where the storage below guarantees it"
                )
        return None

    def _log(self, reason: str | None, detail: str | None) -> None:
        """Logs only changes: probes come every few seconds."""
        if reason == self._logged:
            return
        self._logged = reason
        if detail is None:
            logger.info("ready again")
        else:
            logger.warning("not ready: %s", detail)
