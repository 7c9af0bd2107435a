"""Migrates the schema: calls Alembic with a connection instead of a URL in a file."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.errors import DeadlockDetected, InsufficientPrivilege, LockNotAvailable
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from fastpubsub.database import spreading
from fastpubsub.database.sessions import SESSION, encoding_problem
from fastpubsub.database.urls import normalise
from fastpubsub.exceptions import Unavailable

Result = TypeVar("Result")

SCHEMA = "fastpubsub"
# Any number that applications are unlikely to use; advisory locks are per database.
ADVISORY_LOCK = 0x66707362
CONNECT_TIMEOUT_SECONDS = 10
"""A server that accepts connections and says nothing would be waited for without an end."""

LOCK_TIMEOUT_SECONDS = 1.5
"""More than the second after which PostgreSQL ends a vacuum that is in the way."""
ATTEMPTS = 40
COMMIT = "-- Committed before what follows.\n"
TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
UNLIMITED = "select set_config(:name, '0', true) where current_setting(:name, true) is not null"
"""For older PostgreSQL does not know all of them."""

GRANTEES = """
    select case a.grantee when 0 then 'public' else a.grantee::regrole::text end
    from pg_proc as p cross join aclexplode(p.proacl) as a
    where p.pronamespace = 'fastpubsub'::regnamespace and p.proname = :function and a.privilege_type = 'EXECUTE'
"""


def upgrade(url: str, revision: str = "head") -> None:
    """Two at once are safe. Waits for locks in short turns, so that it never holds up the traffic that it waits for."""
    migrate(url, command.upgrade, revision)


def downgrade(url: str, revision: str) -> None:
    """Down to `base` nothing is left but the empty schema and its version table."""
    migrate(url, command.downgrade, revision)


def current(url: str) -> str | None:
    """Returns the revision, or None for a database that was never migrated."""
    return _reading(url, _revision)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA}).get_current_revision()


def head() -> str:
    """Returns the newest revision of this version."""
    return _newest(folder())


@functools.cache
def _newest(scripts: Path) -> str:
    """To read all migrations takes longer than to ask the database for its revision."""
    revision = ScriptDirectory(str(scripts)).get_current_head()
    if revision is None:
        raise RuntimeError(f"no migrations in {scripts}")
    return revision


def is_known(revision: str) -> bool:
    """Returns whether this version has the revision; otherwise a newer one made it."""
    scripts = ScriptDirectory(str(folder()))
    return any(one.revision == revision for one in scripts.walk_revisions())


def spread(url: str, shards: int = spreading.SHARDS) -> list[spreading.Step]:
    """Spreads the topics over the nodes of the database, in one transaction, and returns what was done for it."""

    def work(connection: Connection) -> list[spreading.Step]:
        begin(connection)
        todo = _steps(connection)
        spreading.take(connection, todo, shards)
        return todo

    def free(connection: Connection) -> None:
        begin(connection)
        spreading.free(connection, done)

    done = in_turn(url, work)
    in_turn(url, free)
    return done


def spread_plan(url: str) -> tuple[spreading.State, list[spreading.Step]]:
    """Returns what the database is, and what `spread` would do; changes nothing. Raises Unavailable as `spread`."""
    return _reading(url, lambda connection: (spreading.look(connection), _steps(connection)))


def spread_state(url: str) -> tuple[spreading.State, list[spreading.Step]]:
    """As `spread_plan`, of any database: without steps where there is nothing to spread over."""

    def read(connection: Connection) -> tuple[spreading.State, list[spreading.Step]]:
        state = spreading.look(connection, with_topics=True)
        return state, spreading.steps(state) if state.is_spread else []

    return _reading(url, read)


def _reading(url: str, read: Callable[[Connection], Result]) -> Result:
    try:
        with engine_for(url).connect() as connection:
            return read(connection)
    except (OperationalError, ProgrammingError) as error:
        raise explained(error) from error


def _steps(connection: Connection) -> list[spreading.Step]:
    """Raises Unavailable with what keeps the database from being spread."""
    state = spreading.look(connection)
    if problem := spreading.refusal(state, head(), _revision(connection)):
        raise Unavailable(problem)
    return spreading.steps(state)


def migrate(url: str, step: Callable[[Config, str], None], revision: str) -> None:
    def work(connection: Connection) -> None:
        step(config_for(connection), revision)
        spreading.adjust(connection)

    in_turn(url, work)


def in_turn(url: str, work: Callable[[Connection], Result]) -> Result:
    """Commits the work, which is done again as long as others hold locks on the tables."""
    engine = engine_for(url)
    for attempt in range(ATTEMPTS):
        try:
            with engine.begin() as turn, engine.connect() as connection:
                take_turns(turn)
                refuse_encoding(connection)
                done = work(connection)
                connection.commit()
            return done
        except (OperationalError, ProgrammingError) as error:
            if not isinstance(error.orig, (LockNotAvailable, DeadlockDetected)):
                raise explained(error) from error
            time.sleep(min(0.1 * 2**attempt, LOCK_TIMEOUT_SECONDS))
        except CommandError as error:
            raise Unavailable(f"{error}: a newer fastpubsub migrated the database; install that version") from error
    raise Unavailable("other transactions held locks on the tables for too long: end them, then run db-migrate again")


def refuse_encoding(connection: Connection) -> None:
    if problem := encoding_problem(connection.execute(text("show server_encoding")).scalar_one()):
        raise Unavailable(problem)


def explained(error: DBAPIError) -> Exception:
    reason = str(error.orig).strip().partition("\n")[0]
    if isinstance(error.orig, InsufficientPrivilege):
        return Unavailable(f"{reason}: migrate as a user who may create schemas in this database and owns fastpubsub's")
    if isinstance(error, OperationalError):
        return Unavailable(f"the database cannot be reached: {reason}: check FASTPUBSUB_DATABASE_URL")
    return error


def engine_for(url: str) -> Engine:
    """Connects without start-up options: a transaction pooler may be in between."""
    arguments = {**SESSION, "options": "", "prepare_threshold": None, "connect_timeout": CONNECT_TIMEOUT_SECONDS}
    return create_engine(normalise(url), poolclass=NullPool, connect_args=arguments)


def config_for(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    return config


def folder() -> Path:
    """Returns the folder of the migrations: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "migrations"
    return packaged if packaged.is_dir() else package.parent / "migrations"


def take_turns(connection: Connection) -> None:
    """Until the end of the transaction, no one else migrates. The migration commits on another connection."""
    lift_timeouts(connection)
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})


def begin(connection: Connection) -> None:
    """Begins a transaction in which waits for locks on tables are short."""
    connection.execute(text("set local search_path = pg_catalog, pg_temp"))
    lift_timeouts(connection)
    connection.execute(text(f"set local lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))


def lift_timeouts(connection: Connection) -> None:
    for timeout in TIMEOUTS:
        connection.execute(text(UNLIMITED), {"name": timeout})


def commit(connection: Connection) -> None:
    connection.commit()
    begin(connection)


@contextmanager
def kept_grants(connection: Connection, function: str) -> Iterator[None]:
    """Whoever may execute the function may do so afterwards, when it has another signature."""
    grantees = connection.execute(text(GRANTEES), {"function": function}).scalars().all()
    yield
    for grantee in grantees:
        connection.exec_driver_sql(f"grant execute on function {SCHEMA}.{function} to {grantee}")


def execute_file(connection: Connection, migration: str, direction: str) -> None:
    """Runs the SQL beside a migration, NNNN_what.<direction>.sql, as it stands: `:` and `%` mean nothing in it.

    Commits between its parts, so that locks on tables in use are held one at a time, and not while functions are made:
    a call that has one table and waits for another one cannot be in a deadlock with it. An interrupted migration begins
    again, so all parts but the last one can be repeated.
    """
    for number, part in enumerate(parts_of(migration, direction)):
        if number:
            commit(connection)
        connection.exec_driver_sql(part, execution_options={"no_parameters": True})


def parts_of(migration: str, direction: str) -> list[str]:
    return Path(migration).with_suffix(f".{direction}.sql").read_text(encoding="utf-8").split(COMMIT)
