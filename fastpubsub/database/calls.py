"""Calls procedures of PostgreSQL, and turns SQLSTATEs into exceptions."""

import asyncio
import contextlib
import functools
import logging
import re
from collections.abc import Collection, Sequence
from typing import cast

import psycopg

from fastpubsub.config import Settings
from fastpubsub.database.changes import Change
from fastpubsub.database.connections import Connections, Connector, Row, cut_after
from fastpubsub.database.nodes import Known, Nodes
from fastpubsub.database.spreading import OF_A_TOPIC, was_moved
from fastpubsub.exceptions import (
    AlreadyExists,
    BacklogFull,
    FastpubsubError,
    InvalidRequest,
    NoLongerHeld,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    SchemaChanged,
    Unavailable,
)

logger = logging.getLogger(__name__)

_REFUSALS: dict[str, type[FastpubsubError]] = {
    "FP403": PermissionDenied,
    "FP404": NotFound,
    "FP409": AlreadyExists,
    "FP410": NoLongerHeld,
    "FP422": InvalidRequest,
    "FP428": SchemaChanged,
    "FP429": BacklogFull,
    "FP430": BacklogFull,
}
# Reported before the commit, so nothing was stored, and about what was sent: with less of it the call may succeed. Not
# 40 and 55P03, for each repetition would wait for the same lock, nor FP404, which is about all of it.
_ABOUT_ARGUMENTS = ("22", "23", "54", "FP422", "FP430")
_RETRIED = ("40001", "40P01")
# Missing schema, table or function: not migrated yet.
_UNMIGRATED = ("3F000", "42P01", "42883")
_ISOLATION = "25000"
_TROUBLE = ("08", "53", "55P03", "25006", *_RETRIED, *_UNMIGRATED)
# The server gave up the call or the session, for whatever timeout or shutdown.
_UNKNOWN = ("57014", "57P", "25P")
_ATTEMPTS = 4
_UNWATCHED = contextlib.nullcontext()


class Database:
    """Calls procedures of the schema `fastpubsub`, each as one statement in its own transaction.

    A call waits at most `database_call_timeout_seconds` for its answer; then its connection is cut, and nobody knows
    whether it was done.
    """

    def __init__(self, settings: Settings) -> None:
        self._connections = Connections(settings)
        self._timeout = settings.database_call_timeout_seconds
        self._prepare = settings.database_pooler != "transaction"
        self._echo = settings.database_echo
        self._nodes = Nodes(self._fetch, Connector(settings))

    async def close(self) -> None:
        await self._nodes.close()
        await self._connections.close()

    async def fetch_one(self, procedure: str, *arguments: object, change: Change | None = None) -> Row:
        """Returns the only row of `fastpubsub.<procedure>(…)`. A change is recorded in the same transaction."""
        if change is None:
            rows = await self.fetch_all(procedure, *arguments)
        else:
            rows = await self._fetch(_recorded_query(procedure, len(arguments)), (*arguments, *change))
        return rows[0]

    async def fetch_all(self, procedure: str, *arguments: object) -> list[Row]:
        return await self._fetch(_query(procedure, len(arguments)), arguments)

    async def fetch_by_node(self, procedure: str, *arguments: object) -> list[Row]:
        """As `fetch_all`, of a procedure over every topic whose last parameter limits it to some of them.

        Where topics are on several nodes, it is called for those of each, without those of a node that is away.
        """
        if not (parts := await self._nodes.with_topics()):
            return await self.fetch_all(procedure, *arguments)
        rows: list[Row] = []
        for address, topic_keys in self._nodes.there(parts):
            rows += await self._ask_node(address, procedure, *arguments, topic_keys) or []
        return rows

    async def fetch_from_nodes(self, procedure: str, wanted: Collection[int], *arguments: object) -> Known:
        """Calls a procedure of several topics of one node for those that are wanted, on each node at once.

        Its first two parameters are one of the topics and all of them. A node that is away is left out.
        """
        parts = await self._nodes.with_topics()
        there = self._nodes.there(parts)
        keys = [sorted(set(topic_keys).intersection(wanted)) for _, topic_keys in there]
        asked = [(node, some) for node, some in zip(there, keys, strict=True) if some]
        answers = await asyncio.gather(
            *(self._ask_node(address, procedure, some[0], some, *arguments) for (address, _), some in asked)
        )
        silent = {address for ((address, _), _), answer in zip(asked, answers, strict=True) if answer is None}
        rows = [row for answer in answers for row in answer or ()]
        if len(there) == len(parts) and not silent:
            return Known(rows, None)
        return Known(rows, [key for address, topic_keys in there if address not in silent for key in topic_keys])

    async def _ask_node(self, address: str, procedure: str, *arguments: object) -> list[Row] | None:
        """None when it is away."""
        try:
            return await self.fetch_all(procedure, *arguments)
        except (Unavailable, OutcomeUnknown) as error:
            logger.warning("%s leaves out the topics of the node %s: %s", procedure, address, error.detail)
            await self._nodes.look()
            return None

    async def fetch_known(self, procedure: str, *arguments: object) -> Known:
        """As `fetch_all`, of a procedure over topics whose last parameter, beside these, limits it to some of them.

        While a node is away, it is limited to the topics of the others. Where all answer, nothing else is asked.
        """
        try:
            return await self._fetch_known(procedure, arguments)
        except (Unavailable, OutcomeUnknown) as error:
            if not (_is_answer(error) and await self.is_spread()):
                raise
        await self._nodes.look()
        return await self._fetch_known(procedure, arguments)

    async def _fetch_known(self, procedure: str, arguments: tuple[object, ...]) -> Known:
        topic_keys = await self._nodes.known_topics()
        if topic_keys is None:
            return Known(await self.fetch_all(procedure, *arguments), None)
        return Known(await self.fetch_all(procedure, *arguments, topic_keys), topic_keys)

    async def missing_topics(
        self, known: Known, topic_ids: list[str] | None, subscription_ids: list[str] | None
    ) -> list[str]:
        """Ids of topics that are not in it, 100 at most: of these, or with one of these subscriptions; None is all."""
        return await self._nodes.missing(known.topic_keys, topic_ids, subscription_ids)

    async def count_missing_topics(self) -> int:
        """How many topics are on nodes that are away, as far as this process knows."""
        return await self._nodes.count_missing()

    async def is_spread(self, *, ask_again: bool = False) -> bool:
        """Whether topics are on several nodes, where procedures over every topic take one after the other.

        `ask_again`: the catalog, even if it has just said that there is one node. Once spread they stay so.
        """
        return self._nodes.are_several or bool(await self._nodes.with_topics(ask_again=ask_again))

    async def _fetch(self, query: bytes, arguments: Sequence[object]) -> list[Row]:
        if self._echo:
            logger.info("%s", query.decode())
        if self._nodes.silent and self._nodes.is_silent(_topic_of(query, arguments)):
            raise Unavailable("the database node of this topic does not answer; try again")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._execute(query, arguments)
            except psycopg.Error as error:
                hide_values(error)
                if (error.sqlstate in _RETRIED or was_moved(error)) and attempt < _ATTEMPTS:
                    await asyncio.sleep(0.01 * attempt)
                    continue
                if error.sqlstate is None:
                    self._nodes.suspect(_topic_of(query, arguments))
                refusal = translate(error)
                if refusal is None:
                    raise
                raise refusal from error
        raise AssertionError("unreachable")

    async def _execute(self, query: bytes, arguments: Sequence[object]) -> list[Row]:
        borrowed = await self._connections.borrow()
        connection = borrowed.connection
        usable = True
        topic_key = _topic_of(query, arguments) if self._nodes.are_several else None
        watched = _UNWATCHED if topic_key is None else self._nodes.watched(connection, topic_key)
        try:
            with cut_after(self._timeout, connection), watched:
                cursor = await connection.execute(query, arguments, prepare=self._prepare, binary=True)
                return await cursor.fetchall()
        except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.FeatureNotSupported):
            # After a failover this is the old primary; the next connection looks for the new one. And it prepares anew
            # what had another result when this one did.
            usable = False
            raise
        finally:
            await self._connections.give_back(borrowed, usable)


def translate(error: psycopg.Error) -> FastpubsubError | None:
    """Returns the error for the caller of a procedure, or None for an unexpected one."""
    state = error.sqlstate
    if state in _REFUSALS:
        return _REFUSALS[state](error.diag.message_primary or "the request was refused")
    if state is None or state.startswith(_UNKNOWN):
        return OutcomeUnknown("the connection to the database was lost before it answered; try again")
    if state in _UNMIGRATED:
        return Unavailable("the database has no fastpubsub schema of this version; run `fastpubsub db-migrate`")
    if state == _ISOLATION:
        return Unavailable("the database has another default isolation level than read committed")
    if state.startswith(_TROUBLE) or was_moved(error):
        return Unavailable("the database cannot do this at the moment; try again")
    return None


def hide_values(error: psycopg.Error) -> None:
    """Removes details, because the text may be logged, and they show rows: payloads, hashes of secrets."""
    if error.sqlstate is not None:
        places = [line for line in (error.diag.context or "").splitlines() if line.startswith("PL/pgSQL function ")]
        error.args = ("\n".join([f"{error.diag.message_primary} ({error.sqlstate})", *places]),)


def blames_arguments(error: BaseException) -> bool:
    """Returns whether the server stored nothing because of the caller's values."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    return (
        isinstance(cause, psycopg.Error) and cause.sqlstate is not None and cause.sqlstate.startswith(_ABOUT_ARGUMENTS)
    )


def is_unsupported(error: BaseException) -> bool:
    """Returns whether the database refused to do something in this way, and stored nothing.

    So it is with something for several topics where they are on several nodes (`Database.is_spread`), and with what a
    connection has prepared, once it has another result.
    """
    return isinstance(error, psycopg.errors.FeatureNotSupported)


def _is_answer(error: FastpubsubError) -> bool:
    """Whether the database itself said so, and not the lack of a connection to it."""
    return isinstance(error.__cause__, psycopg.Error) and error.__cause__.sqlstate is not None


def _topic_of(query: bytes, arguments: Sequence[object]) -> int | None:
    """The key of the topic that a call is for, None for other calls."""
    return cast("int", arguments[0]) if _is_of_a_topic(query) else None


@functools.cache
def _is_of_a_topic(query: bytes) -> bool:
    called = re.search(rb" from fastpubsub\.(\w+)\(", query)
    return called is not None and called[1].decode() in OF_A_TOPIC


@functools.cache
def _query(procedure: str, arguments: int) -> bytes:
    # Procedures are named by this program only.
    return f"select * from fastpubsub.{procedure}({', '.join(['%s'] * arguments)})".encode()  # noqa: S608


@functools.cache
def _recorded_query(procedure: str, arguments: int) -> bytes:
    """It refers to the result of the procedure, which is therefore called first."""
    called = f"fastpubsub.{procedure}({', '.join(['%s'] * arguments)}) as result"
    recorded = "fastpubsub.record_change(%s, %s, %s, %s, coalesce(%s, result::text), %s::json)"
    return f"select result.* from {called} cross join lateral {recorded}".encode()  # noqa: S608
