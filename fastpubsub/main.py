"""The command line: parses, builds the settings, calls one function, prints. Heavy imports are inside the commands."""

import os
from collections.abc import Callable, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fastpubsub.cli import clients, dead_letters, messages, subscriptions, topics
from fastpubsub.cli.exits import FAILED, INTERRUPTED, WRONG_USAGE, fail, note

if TYPE_CHECKING:
    from fastpubsub.config import Settings
    from fastpubsub.database import Database

Result = TypeVar("Result")

SECRET_KEY_BYTES = 32
HEALTHCHECK_SECONDS = 3
COMPLETION = "_FASTPUBSUB_COMPLETE"
"""Set by the scripts of shells that want to know how a command line goes on."""

NEED_DATABASE = (
    "this needs a database: set FASTPUBSUB_DATABASE_URL=postgresql+psycopg://user:password@host:5432/database "
    "in the environment or in .env; `fastpubsub dev` needs none"
)


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


app = typer.Typer(
    name="fastpubsub",
    help="Publish/subscribe over HTTP on nothing but PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Exit codes: 0 done, 1 failed at work, 2 wrong usage or settings."""
    from fastpubsub.exceptions import FastpubsubError, InvalidRequest

    if COMPLETION in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        app()
    except InvalidRequest as error:
        fail(error.detail, WRONG_USAGE)
    except FastpubsubError as error:
        fail(error.detail, FAILED)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Under the spec's name, and hidden under the same name with the other kind of dashes."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name)(function)
        alias = name.replace("-", "_") if "-" in name else name.replace("_", "-")
        if alias != name:
            app.command(alias, hidden=True)(function)
        return function

    return register


@app.callback(invoke_without_command=True)
def options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        from fastpubsub import __version__

        print(__version__)
        raise typer.Exit


@command("server")
def server() -> None:
    """Serve the API."""
    settings = settings_with_database()
    from fastpubsub import logs
    from fastpubsub.api.server import ServerError, run

    logs.configure(settings)
    try:
        run(settings)
    except ServerError as error:
        fail(str(error), FAILED)


@command("db-migrate")
def db_migrate() -> None:
    """Create or upgrade the schema in the database."""
    settings = settings_with_database()
    from fastpubsub import schema

    url = settings.database_url.get_secret_value() if settings.database_url else ""
    before = schema.current(url)
    schema.upgrade(url)
    note(f"the schema is at revision {schema.head()}, it was at {before or 'none'}")


@command("cleanup_acked_messages")
def cleanup_acked_messages() -> None:
    """Delete settled messages that are older than FASTPUBSUB_CLEANUP_ACKED_MESSAGES_OLDER_THAN_SECONDS."""
    settings = settings_with_database()
    from fastpubsub.services.maintenance import trim_messages

    seconds = settings.cleanup_acked_messages_older_than_seconds
    window_seconds = settings.idempotency_window_seconds

    async def trim(database: "Database") -> int:
        return await trim_messages(database, seconds, window_seconds=window_seconds)

    note(f"deleted {with_database(settings, trim)} settled messages older than {seconds} seconds")


@command("cleanup_stuck_messages")
def cleanup_stuck_messages() -> None:
    """Release messages whose ack deadline has passed; a running server does it by itself."""
    settings = settings_with_database()
    from fastpubsub.services.maintenance import release_expired_leases

    done = with_database(settings, release_expired_leases)
    note(
        f"released {done.released} messages past their ack deadline; "
        f"{done.dead} of them had no attempts left and are dead letters now"
    )


@command("generate_secret_key")
def generate_secret_key() -> None:
    """Print a new key for FASTPUBSUB_AUTH_SECRET_KEY."""
    import secrets

    print(f"new_secret={secrets.token_hex(SECRET_KEY_BYTES)}")


@command("create_client")
def create_client(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    scopes: Annotated[str, typer.Argument(help="Separated by spaces.")] = "*",
    is_active: Annotated[bool, typer.Argument(help="true or false")] = True,
) -> None:
    """Create a client of the API and print its id and secret."""
    settings = settings_with_database()
    from pydantic import ValidationError

    from fastpubsub.models import ClientCredentials, NewClient
    from fastpubsub.scopes import ADMINISTRATOR
    from fastpubsub.services import clients
    from fastpubsub.services.hashing import SecretHasher

    try:
        client = NewClient(name=name, scopes=scopes, is_active=is_active)
    except ValidationError as error:
        fail(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}", WRONG_USAGE)

    async def create(database: "Database") -> ClientCredentials:
        hasher = SecretHasher()
        try:
            return await clients.create_client(database, hasher, client, ADMINISTRATOR)
        finally:
            hasher.close()

    credentials = with_database(settings, create)
    print(f"client_id={credentials.id}")
    print(f"client_secret={credentials.secret}")


@command("dev")
def dev(
    port: Annotated[int | None, typer.Option(help="Instead of FASTPUBSUB_API_PORT.", min=1, max=65535)] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Remove what an earlier run has stored.")] = False,
    data: Annotated[Path, typer.Option(help="Where the embedded PostgreSQL stores.")] = Path(".fastpubsub"),
    database_url: Annotated[
        str | None, typer.Option("--database-url", help="Use this database instead of an embedded one.")
    ] = None,
) -> None:
    """Serve with a PostgreSQL of its own, on this machine only; needs nothing but this command."""
    from fastpubsub.api.server import ServerError
    from fastpubsub.config import ConfigurationError
    from fastpubsub.dev import run
    from fastpubsub.embedded import EmbeddedError

    if reset and database_url is not None:
        fail(
            "--reset removes only the data of the embedded PostgreSQL: leave out --database-url, or --reset",
            WRONG_USAGE,
        )
    try:
        run(data, port, reset, database_url)
    except ConfigurationError as error:
        fail(str(error), WRONG_USAGE)
    except (ServerError, EmbeddedError) as error:
        fail(str(error), FAILED)


@command("worker")
def worker(
    targets: Annotated[list[str], typer.Argument(metavar="MODULE:WORKER...", help="Where your workers are.")],
    concurrency: Annotated[
        int | None, typer.Option(help="Messages of each subscription at once, instead of the workers' own.", min=1)
    ] = None,
) -> None:
    """Process messages with workers of yours, until SIGTERM or SIGINT."""
    from fastpubsub import logs
    from fastpubsub.client.errors import BusError
    from fastpubsub.client.runner import TargetError, load, run

    settings = load_settings()
    logs.configure(settings)
    logs.show_all(settings)
    try:
        run([load(target) for target in targets], concurrency)
    except TargetError as error:
        fail(str(error), WRONG_USAGE)
    except BusError as error:
        fail(str(error), FAILED)


@command("doctor")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    patience: Annotated[
        float, typer.Option(help="Seconds; what has lasted longer is reported: a transaction, a backlog.", min=0)
    ] = 300,
) -> None:
    """Look whether everything is as it should be, and say what to do about the rest; changes nothing."""
    import asyncio
    import os

    settings = settings_with_database()
    from fastpubsub.services.doctor.examination import examine
    from fastpubsub.services.doctor.report import document, table, worst

    findings = asyncio.run(examine(settings, os.environ, patience=patience))
    print(document(findings) if as_json else table(findings))
    if worst(findings) == "problem":
        raise SystemExit(FAILED)


@command("healthcheck")
def healthcheck() -> None:
    """Ask the server of this machine whether it is ready; for a container's health check."""
    import http.client

    settings = load_settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)  # noqa: S104 - compared
    connection = http.client.HTTPConnection(host, settings.api_port, timeout=HEALTHCHECK_SECONDS)
    try:
        connection.request("GET", "/readiness")
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        fail(f"no answer from {host} port {settings.api_port}: {error}", FAILED)
    if response.status != http.client.OK:
        fail(f"not ready: {body}", FAILED)
    note("ready")


app.command("publish")(messages.publish)
app.command("pull")(messages.pull)
app.command("tail")(messages.tail)
app.add_typer(topics.app, name="topics")
app.add_typer(subscriptions.app, name="subscriptions")
app.add_typer(clients.app, name="clients")
app.add_typer(dead_letters.app, name="dlq")


@command("completion")
def completion(shell: Annotated[Shell, typer.Argument(help="The shell that you use.")]) -> None:
    """Print a script that lets a shell complete commands and options."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    print(get_completion_script(prog_name="fastpubsub", complete_var=COMPLETION, shell=shell.value))


def load_settings() -> "Settings":
    from fastpubsub import config

    try:
        return config.load_settings()
    except config.ConfigurationError as error:
        fail(str(error), WRONG_USAGE)


def settings_with_database() -> "Settings":
    settings = load_settings()
    if settings.database_url is None:
        fail(NEED_DATABASE, WRONG_USAGE)
    from fastpubsub.urls import normalise

    try:
        normalise(settings.database_url.get_secret_value())
    except ValueError as error:
        fail(f"FASTPUBSUB_DATABASE_URL: {error}", WRONG_USAGE)
    return settings


def with_database(settings: "Settings", work: "Callable[[Database], Coroutine[Any, Any, Result]]") -> "Result":
    import asyncio

    from fastpubsub.database import Database

    async def run() -> Result:
        database = Database(settings)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


if __name__ == "__main__":
    main()
