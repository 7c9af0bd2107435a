"""Runs `fastpubsub dev`: PostgreSQL and the server on this machine, and prints requests to try."""

import asyncio
import os
import secrets
import shutil
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastpubsub import __version__, demo, logs
from fastpubsub.api.metrics_folder import metrics_folder
from fastpubsub.api.server import bound_socket, serve_here
from fastpubsub.config import Settings, load_settings
from fastpubsub.database import migrations
from fastpubsub.database.calls import Database
from fastpubsub.embedded import EmbeddedPostgres, locked, stop_left_behind
from fastpubsub.models import ClientCredentials, NewClient
from fastpubsub.scopes import ADMINISTRATOR, EVERYTHING
from fastpubsub.services.clients import create_client
from fastpubsub.services.hashing import SecretHasher
from fastpubsub.stopping import CUT, handled, insisting

HOST = "127.0.0.1"

WELCOME = """
  fastpubsub {version} for development: {access}, for this machine only

  Console   {url}/console
  API       {url}
  Swagger   {url}/docs
  ReDoc     {url}/redoc
  Metrics   {url}/metrics
  Database  {database}

  Try these in another terminal, one after the other:

{lines}
  Ctrl-C stops it.
"""
LINES = """\
curl -w '\\n' {url}/topics -H 'Content-Type: application/json' -d '{{"id": "demo"}}' \
--next -w '\\n' {url}/subscriptions -H 'Content-Type: application/json' -d '{{"id": "demo-sub", "topic_id": "demo"}}'

curl -w '\\n' {url}/topics/demo/messages -H 'Content-Type: application/json' -H 'Prefer: return=representation' \
-d '[{{"hello": "world"}}]'

curl -w '\\n' '{url}/subscriptions/demo-sub/messages?consumer_id=me'
"""

LINES_OF_A_CLIENT = """\
export FASTPUBSUB_URL={url} FASTPUBSUB_CLIENT_ID={client.id} FASTPUBSUB_CLIENT_SECRET={client.secret}

fastpubsub topics create demo && fastpubsub subscriptions create demo-sub demo

fastpubsub publish demo '{{"hello": "world"}}' && fastpubsub pull demo-sub
"""


@dataclass(frozen=True)
class Extras:
    auth: bool = False
    opens: bool = False
    demo: bool = False


def run(data: Path, port: int | None, reset: bool, database_url: str | None, extras: Extras) -> None:
    """Returns after a signal to stop; the third one ends this process at once, but not before PostgreSQL."""
    with ExitStack() as stack:
        stack.enter_context(insisting(SystemExit, _leave))
        _handle(_leave)
        fixed: dict[str, Any] = {"api_host": HOST, "auth_enabled": extras.auth}
        if extras.auth:
            fixed["auth_secret_key"] = secrets.token_hex(32)
        if port is not None:
            fixed["api_port"] = port
        # Before a database is made for nothing.
        given = load_settings(**fixed, database_url=database_url)
        bound_socket(HOST, given.api_port).close()
        if reset and database_url is None:
            forget(data)
        url, described = database_url, "as given with --database-url"
        key = None
        if url is None:
            url, file = stack.enter_context(database(data))
            key = _push_key(data / "push_key")
            described = f"PostgreSQL, embedded; its URL is in {file}; --reset removes the data"
        stack.callback(_handle, signal.SIG_IGN)  # nothing interrupts what follows
        fixed |= push_settings(given, key)
        _serve(fixed, url, described, extras, stack)


def push_settings(given: Settings, key: str | None) -> dict[str, Any]:
    """Those with which endpoints on this machine are pushed to, where nothing else is given."""
    wanted = {
        "push_allow_http": True,
        "push_allow_networks": "127.0.0.0/8,::1/128",
        "push_allow_ports": "*",
        "push_secret_key": key,
    }
    return {name: value for name, value in wanted.items() if name not in given.model_fields_set}


def _push_key(file: Path) -> str:
    """Stays with the data, whose secrets it seals."""
    file.touch(0o600)
    if not file.read_text():
        file.write_text(secrets.token_hex(32))
    return file.read_text()


@contextmanager
def database(data: Path) -> Iterator[tuple[str, Path]]:
    """Returns its URL, and the file in which other applications find the URL."""
    with EmbeddedPostgres(data) as postgres:
        file = data / "url"
        file.write_text(f"{postgres.url()}\n")
        try:
            yield postgres.url(), file
        finally:
            file.unlink(missing_ok=True)
            postgres.stop()
            print(f"fastpubsub: stopped; the data stays in {postgres.data}", file=sys.stderr, flush=True)


def forget(data: Path) -> None:
    """Removes the database in this folder, and nothing else that may be there."""
    if data.exists():
        with locked(data):
            stop_left_behind(data / "cluster")
            shutil.rmtree(data / "cluster", ignore_errors=True)


def _serve(fixed: dict[str, Any], database_url: str, described: str, extras: Extras, stack: ExitStack) -> None:
    settings = load_settings(**fixed, database_url=database_url)
    logs.configure(settings)
    migrations.upgrade(database_url)
    client = asyncio.run(_make_client(settings)) if extras.auth else None

    def welcome() -> None:
        url = f"http://{HOST}:{settings.api_port}"
        print(_welcome(url, described, client), file=sys.stderr, flush=True)
        if extras.demo:
            _in_background(_run_shop, url, client)
        if extras.opens:
            _in_background(webbrowser.open, f"{url}/console")

    def hurry() -> None:
        print("fastpubsub: ending at once: requests in flight get no answer", file=sys.stderr, flush=True)
        stack.close()
        os._exit(CUT)

    with metrics_folder(workers=1):
        serve_here(settings, welcome, hurry)


def _welcome(url: str, described: str, client: ClientCredentials | None) -> str:
    access, lines = "without authentication", LINES.format(url=url)
    if client is not None:
        access, lines = "with authentication", LINES_OF_A_CLIENT.format(url=url, client=client)
        described += f"\n  Client    {client.id}\n  Secret    {client.secret}"
    return WELCOME.format(version=__version__, access=access, url=url, database=described, lines=lines)


async def _make_client(settings: Settings) -> ClientCredentials:
    database, hasher = Database(settings), SecretHasher()
    try:
        wanted = NewClient(name="fastpubsub dev", scopes=EVERYTHING)
        return await create_client(database, hasher, wanted, ADMINISTRATOR)
    finally:
        hasher.close()
        await database.close()


def _run_shop(url: str, client: ClientCredentials | None) -> None:
    credentials = (str(client.id), client.secret) if client else ()
    asyncio.run(demo.run(url, *credentials))


def _in_background(function: Any, *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _handle(handler: Any) -> None:
    for number in handled():
        signal.signal(number, handler)


def _leave(_number: int, _frame: object) -> None:
    """Through all `finally`, so that PostgreSQL stops as well."""
    _handle(signal.SIG_IGN)
    raise SystemExit(0)
