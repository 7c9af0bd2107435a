"""The command line: it parses, builds the settings, calls one function and prints; commands import heavy modules."""

import os
from collections.abc import Callable, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fastpubsub.cli import (
    browsing,
    clients,
    consumers,
    contexts,
    dead_letters,
    delayed,
    describing,
    explaining,
    filters,
    listening,
    looking,
    mcp,
    messages,
    opening,
    pushed,
    refused,
    schedules,
    settling,
    top,
    topics,
    topology,
)
from fastpubsub.cli.commands import Commands
from fastpubsub.cli.exits import FAILED, INTERRUPTED, WRONG_USAGE, fail, note, printable
from fastpubsub.cli.helping import Group
from fastpubsub.cli.output import reopen_closed, write_text

if TYPE_CHECKING:
    from fastpubsub.config import Settings
    from fastpubsub.database.calls import Database

Result = TypeVar("Result")

SECRET_KEY_BYTES = 32
HEALTHCHECK_SECONDS = 3
COMPLETION = "_FASTPUBSUB_COMPLETE"
"""Set by the scripts of shells that want to know how a command line goes on."""

NEED_DATABASE = (
    "this needs a database: set FASTPUBSUB_DATABASE_URL=postgresql+psycopg://user:password@host:5432/database "
    "in the environment or in .env; `fastpubsub dev` needs none"
)


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


app = Commands(
    name="fastpubsub",
    cls=Group,
    help="Publish/subscribe over HTTP on nothing but PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Runs a command; the exit codes are 0 (done), 1 (failed) and 2 (wrong usage or settings)."""
    from fastpubsub.exceptions import FastpubsubError, InvalidRequest

    reopen_closed()
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
    """Registers the command under the spec's name, and hidden under the same name with the other kind of dashes."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name)(function)
        alias = name.replace("-", "_") if "-" in name else name.replace("_", "-")
        if alias != name:
            app.command(alias, hidden=True)(function)
        return function

    return register


@app.callback(invoke_without_command=True)
def options(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
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
    from fastpubsub.api.processes import run
    from fastpubsub.api.server import CannotServe

    logs.configure(settings)
    try:
        run(settings)
    except CannotServe as error:
        fail(str(error), FAILED)


@command("push")
def push() -> None:
    """Push messages to endpoints, beside servers or instead of them, until SIGTERM or SIGINT."""
    settings = settings_with_database()
    from fastpubsub import logs
    from fastpubsub.push.process import run

    if not settings.push_keys():
        fail("set FASTPUBSUB_PUSH_SECRET_KEY, which the servers have; nothing is pushed without it", WRONG_USAGE)
    logs.configure(settings)
    run(settings.model_copy(update={"push_enabled": True}))


@command("db-migrate")
def db_migrate() -> None:
    """Create or upgrade the schema in the database."""
    settings = settings_with_database()
    from fastpubsub.database import migrations

    url = settings.database_url.get_secret_value() if settings.database_url else ""
    before = migrations.current(url)
    migrations.upgrade(url)
    note(f"the schema is at revision {migrations.head()}, it was at {before or 'none'}")


@command("db-spread")
def db_spread(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and what it holds.")] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Only say where topics are, and what is left to do.")
    ] = False,
    groups: Annotated[
        int, typer.Option(help="Into how many groups topics are divided; a group moves as one.", min=1, max=1024)
    ] = 32,
) -> None:
    """Spread the topics over the nodes of a cluster of Citus."""
    settings = settings_with_database()
    from fastpubsub.database import migrations, spreading

    url = settings.database_url.get_secret_value() if settings.database_url else ""
    if status:
        state, left = migrations.spread_state(url)
        write_text("\n".join(spreading.report(state, left)) + "\n")
        return
    state, work = migrations.spread_plan(url)
    for line in spreading.announcement(state, work, groups):
        note(line)
    if work and not dry_run:
        migrations.spread(url, groups)
        note(spreading.described(migrations.spread_state(url)[0]))


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
    """Release messages whose ack deadline has passed. A running server also does this."""
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

    write_text(f"new_secret={secrets.token_hex(SECRET_KEY_BYTES)}\n")


@command("create_client")
def create_client(
    name: Annotated[str, typer.Argument(help="A name for people to read.")],
    scopes: Annotated[str, typer.Argument(help="Scopes, separated by spaces.")] = "*",
    is_active: Annotated[bool, typer.Argument(help="true or false")] = True,
) -> None:
    """Create a client of the API and print its id and secret."""
    settings = settings_with_database()
    from pydantic import ValidationError

    from fastpubsub.database.changes import Change
    from fastpubsub.models import ClientCredentials, NewClient, sentence
    from fastpubsub.scopes import ADMINISTRATOR
    from fastpubsub.services import clients
    from fastpubsub.services.hashing import SecretHasher

    try:
        client = NewClient(name=name, scopes=scopes, is_active=is_active)
    except ValidationError as error:
        fail(f"{error.errors()[0]['loc'][0]}: {sentence(error.errors()[0])}", WRONG_USAGE)

    change = Change(ADMINISTRATOR.client_id, None, "create_client", "client", None, client.model_dump_json())

    async def create(database: "Database") -> ClientCredentials:
        hasher = SecretHasher()
        try:
            return await clients.create_client(database, hasher, client, ADMINISTRATOR, change)
        finally:
            hasher.close()

    credentials = with_database(settings, create)
    write_text(f"client_id={credentials.id}\nclient_secret={credentials.secret}\n")


@command("dev")
def dev(
    port: Annotated[
        int | None, typer.Option(help="The port to listen on, instead of FASTPUBSUB_API_PORT.", min=1, max=65535)
    ] = None,
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Delete everything that earlier runs stored, and start with an empty database."),
    ] = False,
    data: Annotated[Path, typer.Option(help="The folder in which the embedded PostgreSQL stores its data.")] = Path(
        ".fastpubsub"
    ),
    database_url: Annotated[
        str | None, typer.Option("--database-url", help="Use this database instead of the embedded PostgreSQL.")
    ] = None,
    auth: Annotated[
        bool, typer.Option("--auth", help="Serve with authentication; make a client with all scopes, and print it.")
    ] = False,
    opens: Annotated[bool, typer.Option("--open", help="Open the console in the browser.")] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Run a small shop that publishes, consumes, fails and crashes.")
    ] = False,
) -> None:
    """Serve on this machine only, with an embedded PostgreSQL. Nothing else is needed."""
    from fastpubsub.api.server import CannotServe
    from fastpubsub.config import ConfigurationError
    from fastpubsub.dev import Extras, run
    from fastpubsub.embedded import EmbeddedError

    if reset and database_url is not None:
        fail(
            "--reset removes only the data of the embedded PostgreSQL: leave out --database-url, or --reset",
            WRONG_USAGE,
        )
    try:
        run(data, port, reset, database_url, Extras(auth, opens, demo))
    except ConfigurationError as error:
        fail(str(error), WRONG_USAGE)
    except (CannotServe, EmbeddedError) as error:
        fail(str(error), FAILED)


@command("worker")
def worker(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="MODULE:WORKER...", help="The module and name of each worker, such as emails:worker."),
    ],
    subscription: Annotated[
        list[str] | None,
        typer.Option(metavar="SUB", help="Run only the functions of this subscription; may be given several times."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(help="How many messages of each subscription to process at once; overrides the workers.", min=1),
    ] = None,
    processes: Annotated[
        int, typer.Option(help="How many processes run the workers, for functions that keep a processor busy.", min=1)
    ] = 1,
    max_messages: Annotated[
        int | None,
        typer.Option(help="After so many messages a process stops, and another one takes its place.", min=1),
    ] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option(help="What to log, instead of FASTPUBSUB_LOG_LEVEL.", show_default=False)
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start the workers again when a Python file in this folder changes.")
    ] = False,
    health_port: Annotated[
        int | None,
        typer.Option(
            help="Answer /live, /ready and /metrics on this port; other processes take the ports after it.",
            min=1,
            max=65535,
        ),
    ] = None,
    health_host: Annotated[str, typer.Option(help="The address of the health port.")] = "127.0.0.1",
) -> None:
    """Process messages with your workers until SIGTERM or SIGINT."""
    from fastpubsub import logs
    from fastpubsub.client.connections import Misconfigured
    from fastpubsub.client.current import MessageFilter
    from fastpubsub.client.errors import BusError
    from fastpubsub.client.processes import supervise
    from fastpubsub.client.runner import RunOptions, TargetError, load, run

    settings = load_settings()
    if log_level is not None:
        settings = settings.model_copy(update={"log_level": log_level.value})
    logs.configure(settings)
    logs.show_all(settings, MessageFilter())
    is_supervised = processes > 1 or reload or max_messages is not None
    child = supervise(processes, Path.cwd() if reload else None) if is_supervised else None
    try:
        workers = [load(target) for target in targets]
        if child is not None:
            child.loaded()
        number = 0 if child is None else child.number
        health = None if health_port is None else (health_host, health_port + number)
        run(workers, RunOptions(subscription or (), concurrency, max_messages, health))
    except (TargetError, Misconfigured) as error:
        fail(printable(str(error)), WRONG_USAGE)
    except BusError as error:
        fail(str(error), FAILED)


@command("doctor")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    patience: Annotated[
        float, typer.Option(help="How many seconds a transaction or a backlog may last before it is reported.", min=0)
    ] = 300,
) -> None:
    """Check the database and the settings, and say how to fix each problem. Changes nothing."""
    import asyncio
    import os

    settings = settings_with_database()
    from fastpubsub.doctor.examination import examine
    from fastpubsub.doctor.report import document, table, worst

    findings = asyncio.run(examine(settings, os.environ, patience=patience))
    write_text(f"{document(findings) if as_json else table(findings)}\n")
    if worst(findings) == "problem":
        raise SystemExit(FAILED)


@command("healthcheck")
def healthcheck() -> None:
    """Ask the server on this machine whether it is ready, for the health check of a container."""
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


app.talking("publish")(messages.publish)
app.talking("pull")(messages.pull)
app.talking("tail")(messages.tail)
app.talking("listen")(listening.listen)
app.talking("status")(looking.status)
app.talking("top")(top.top)
app.talking("open")(opening.open_console)
app.talking("explain")(explaining.explain)
app.talking("ack")(settling.ack)
app.talking("nack")(settling.nack)
app.talking("reject")(settling.reject)
app.talking("extend")(settling.extend)
app.talking("browse")(browsing.browse)
app.talking("consumers")(consumers.consumers)
app.talking("apply")(topology.apply)
app.talking("export")(topology.export)
app.talking("mcp")(mcp.mcp)
app.local("asyncapi")(describing.asyncapi)
app.add_typer(topics.app, name="topics")
app.add_typer(pushed.app, name="subscriptions")
app.add_typer(filters.app, name="filter")
app.add_typer(contexts.app, name="context")
app.add_typer(clients.app, name="clients")
app.add_typer(dead_letters.app, name="dlq")
app.add_typer(delayed.app, name="delayed")
app.add_typer(refused.app, name="refused")
app.add_typer(schedules.app, name="schedules")


@command("completion")
def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print a script that lets a shell complete commands and options."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    write_text(f"{get_completion_script(prog_name='fastpubsub', complete_var=COMPLETION, shell=shell.value)}\n")


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
    from fastpubsub.database.urls import normalise

    try:
        normalise(settings.database_url.get_secret_value())
    except ValueError as error:
        fail(f"FASTPUBSUB_DATABASE_URL: {error}", WRONG_USAGE)
    return settings


def with_database(settings: "Settings", work: "Callable[[Database], Coroutine[Any, Any, Result]]") -> "Result":
    import asyncio

    from fastpubsub.database.calls import Database

    async def run() -> Result:
        database = Database(settings)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


if __name__ == "__main__":
    main()
