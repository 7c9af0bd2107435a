"""Calls of procedures with a span each, for requests that have one."""

import functools
import re
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, StatusCode

from fastpubsub.database.calls import Database
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.traces import links, spans

INTERNAL_ERROR = 500


class TracedDatabase(Database):
    """What the server does by itself has no span: nobody waits for it, and it would be a trace every second."""

    async def _fetch(self, query: bytes, arguments: Sequence[object]) -> list[Row]:
        if not trace.get_current_span().is_recording():
            return await super()._fetch(query, arguments)
        others = links()
        summary = _summary(query)
        with spans.tracer.start_as_current_span(
            summary,
            kind=SpanKind.CLIENT,
            attributes={
                "db.system.name": "postgresql",
                "db.query.summary": summary,
                "db.stored_procedure.name": summary.rpartition(" ")[2],
                **({"db.operation.batch.size": len(others) + 1} if others else {}),
            },
            links=[Link(one) for one in others],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await super()._fetch(query, arguments)
            except Exception as error:
                _note(span, error)
                raise


@functools.cache
def _summary(query: bytes) -> str:
    """By the semantic conventions for databases: what is done to what. What is no procedure asks about the nodes."""
    called = re.match(rb"select (?:\w+\.)?\* from (fastpubsub\.\w+)", query)
    return f"SELECT {called[1].decode() if called else 'pg_catalog'}"


def _note(span: trace.Span, error: Exception) -> None:
    """What the caller did wrong is no error of the database. Texts of exceptions may have values of rows."""
    state = getattr(error.__cause__ or error, "sqlstate", None)
    if state:
        span.set_attribute("db.response.status_code", state)
    if getattr(error, "status", INTERNAL_ERROR) >= INTERNAL_ERROR:
        span.set_attribute("error.type", state or type(error).__qualname__)
        span.set_status(StatusCode.ERROR, error.title if isinstance(error, FastpubsubError) else None)
