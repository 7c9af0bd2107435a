"""`fastpubsub dev`: everything at once on this machine, and what to try first."""

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastpubsub import __version__, logs, schema
from fastpubsub.api.server import bound_socket, serve_here
from fastpubsub.config import load_settings
from fastpubsub.embedded import EmbeddedPostgres, locked, stop_left_behind

HOST = "127.0.0.1"

WELCOME = """
  fastpubsub {version} for development: without authentication, for this machine only

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


def run(data: Path, port: int | None, reset: bool, database_url: str | None) -> None:
    """Returns after a signal to stop."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    fixed: dict[str, Any] = {"api_host": HOST, "auth_enabled": False}
    if port is not None:
        fixed["api_port"] = port
    # Before a database is made for nothing.
    bound_socket(HOST, load_settings(**fixed, database_url=database_url).api_port).close()
    if database_url is not None:
        _serve(fixed, database_url, "as given with --database-url")
        return
    if reset:
        forget(data)
    with EmbeddedPostgres(data) as postgres, url_file(data, postgres.url()) as file:
        _serve(fixed, postgres.url(), f"PostgreSQL, embedded; its URL is in {file}; --reset removes the data")


@contextmanager
def url_file(data: Path, url: str) -> Iterator[Path]:
    """For applications that want to use the same database: it is another one after every start."""
    file = data / "url"
    file.write_text(f"{url}\n")
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def forget(data: Path) -> None:
    """Removes the database in this folder, and nothing else that may be there."""
    if data.exists():
        with locked(data):
            stop_left_behind(data / "cluster")
            shutil.rmtree(data / "cluster", ignore_errors=True)


def _serve(fixed: dict[str, Any], database_url: str, described: str) -> None:
    settings = load_settings(**fixed, database_url=database_url)
    logs.configure(settings)
    schema.upgrade(database_url)

    def welcome() -> None:
        url = f"http://{HOST}:{settings.api_port}"
        text = WELCOME.format(version=__version__, url=url, database=described, lines=LINES.format(url=url))
        print(text, file=sys.stderr, flush=True)

    serve_here(settings, welcome)


def _leave(_number: int, _frame: object) -> None:
    """Through all `finally`, so that PostgreSQL stops as well."""
    raise SystemExit(0)
