"""Alembic runs this: fastpubsub.database.migrations hands it a connection, the `alembic` command makes one."""

from alembic import context
from sqlalchemy import Connection, text

from fastpubsub.config import load_settings
from fastpubsub.database.migrations import SCHEMA, begin, engine_for, take_turns


def run(connection: Connection) -> None:
    begin(connection)
    connection.execute(text(f"create schema if not exists {SCHEMA}"))
    context.configure(connection=connection, version_table_schema=SCHEMA)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("migrations run on a connection only: the SQL to read is in migrations/versions/*.sql")

given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = load_settings().database_url
    if url is None:
        raise SystemExit("set FASTPUBSUB_DATABASE_URL to the database to migrate")
    engine = engine_for(url.get_secret_value())
    with engine.begin() as turn, engine.connect() as made:
        take_turns(turn)
        run(made)
        made.commit()
