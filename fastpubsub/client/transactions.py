"""Settles in a transaction of the application, whose database is that of fastpubsub."""

import inspect
import sys
from collections.abc import Awaitable, Generator
from typing import Any, NamedTuple


class Statement(NamedTuple):
    """`text` has a `{name}` where each value stands."""

    text: str
    values: dict[str, Any]


class Done:
    """What has happened; it may be awaited."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


def execute(session: Any, statement: Statement) -> Awaitable[None]:
    """With a session or a connection of SQLAlchemy or psycopg; a synchronous one has done it at the return."""
    if not hasattr(session, "execute"):
        raise TypeError(
            f"a session or a connection of SQLAlchemy or psycopg is needed, not {type(session).__name__}; "
            "with other drivers call fastpubsub.ack in SQL"
        )
    result = session.execute(_written_for(session, statement), statement.values)
    return _awaited(result) if inspect.isawaitable(result) else Done()


def _written_for(session: Any, statement: Statement) -> Any:
    if any(kind.__module__.partition(".")[0] == "sqlalchemy" for kind in type(session).__mro__):
        # Whoever has a session of it has imported it.
        text = sys.modules["sqlalchemy"].text
        return text(statement.text.format(**{name: f":{name}" for name in statement.values}))
    return statement.text.format(**{name: f"%({name})s" for name in statement.values})


async def _awaited(result: Awaitable[Any]) -> None:
    await result
