"""Fixtures for every test: databases of one PostgreSQL per run, the application, the real server."""

import gc
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from fastpubsub.config import Settings
from tests import clusters, harness, spread_databases, warm
from tests.chromium import browser, lasting_browser
from tests.lasting import SharedApplication, lasting_server, lasting_servers, pytest_runtest_setup
from tests.reports import pytest_report_to_serializable
from tests.wheels import built, installed

__all__ = [
    "browser",
    "built",
    "installed",
    "lasting_browser",
    "lasting_server",
    "lasting_servers",
    "pytest_report_to_serializable",
    "pytest_runtest_setup",
]

NEEDS = {
    "test_examples.py": ("bash", "curl", "jq"),
    "test_docs.py": ("bash", "curl", "jq"),
    "test_readme.py": ("bash", "curl"),
    "test_alerts.py": ("prometheus", "promtool"),
    "test_caddy.py": ("caddy",),
    "test_benchmarks.py": ("wrk",),
    "test_container.py": ("unshare", "setpriv"),
    "browser": ("chromedriver",),
    "doctor/test_doctor_pooler.py": ("pgbouncer",),
    "push/test_libraries.py": ("node",),
    "examples": ("bash", "curl"),
    "examples/test_chat_page.py": ("chromedriver",),
}
"""What people's machines may not have. CI installs it; what no package has there, it names."""


def is_missing(tool: str) -> bool:
    if shutil.which(tool) is None:
        return True
    # Inside of most containers it is there, and forbidden.
    probe = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return tool == "unshare" and subprocess.run(probe, stderr=subprocess.DEVNULL).returncode != 0


MISSING = {name: [tool for tool in tools if is_missing(tool)] for name, tools in NEEDS.items()}
collect_ignore = [name for name, tools in MISSING.items() if tools]
if not spread_databases.are_wanted():
    collect_ignore.append("nodes")
else:
    if os.environ.get("FASTPUBSUB_TEST_FAULTS") != "1":
        collect_ignore.append("nodes/test_faults.py")
    if not os.environ.get("FASTPUBSUB_TEST_STANDBY"):
        collect_ignore.append("nodes/test_failover.py")

# An example takes as long as the machine lets it, and all examples of a test share what its fixtures made.
hypothesis_settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
hypothesis_settings.load_profile("tests")

POSTGRES = pytest.StashKey[harness.Postgres]()
HASHING = pytest.StashKey[tuple[int, int]]()
"""What hashing a secret costs outside of the tests."""

FOLDER = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if name.startswith("FASTPUBSUB_") and "_TEST_" not in name]:
        del os.environ[name]
    # Hundreds of processes would compile everything that they import, again and again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # And each worker would rewrite the assertions of all tests, which is two thirds of its start.
    sys.dont_write_bytecode = False
    # Each httpx.Client reads all authorities that certifi knows, which takes 50 ms; no test speaks TLS to the world.
    os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("authority.pem"))
    # httpx gives up after five seconds, in which a busy machine may not answer.
    patience: httpx.Timeout = inspect.signature(httpx.get).parameters["timeout"].default
    patience.connect = patience.read = patience.write = patience.pool = harness.START_SECONDS
    config.stash[HASHING] = warm.hash_cheaply()
    config.stash[POSTGRES] = harness.Postgres()
    config.stash[FOLDER] = tempfile.TemporaryDirectory(prefix="fastpubsub-")
    if given := getattr(config, "workerinput", {}):
        warm.join(given["warm"])
        clusters.join(given["clusters"])


def pytest_report_header() -> list[str]:
    return [f"left out: tests/{name}, which needs {' and '.join(tools)}" for name, tools in MISSING.items() if tools]


def pytest_xdist_auto_num_workers() -> int:
    """Three for two processors: tests wait a fifth of their time, and each worker takes seconds to begin."""
    return min(max(3 * (os.cpu_count() or 1) // 2, 2), harness.MAX_PROCESSES)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that are marked as long begin first, some in each worker's part: at the end the others would wait."""
    given: dict[str, int] = getattr(config, "workerinput", {})
    items[:] = begun_first(items, given.get("workercount", 1))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What is made here stays: to walk over it, here and in each full collection of garbage later, takes seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def begun_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """As many in a row for each worker as xdist gives it."""
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if item not in long]
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        mine = long[worker::workers]
        count = (len(items) - len(ordered)) // (workers - worker) - len(mine)
        ordered += [*mine, *others[: max(count, 0)]]
        del others[: max(count, 0)]
    return ordered


def pytest_configure_node(node: Any) -> None:
    """In the process that starts the workers of xdist, before each of them."""
    node.workerinput["template_url"] = node.config.stash[POSTGRES].start()
    node.workerinput["clusters"] = clusters.share()
    node.workerinput["warm"] = warm.share(Path(node.config.stash[FOLDER].name))


def pytest_unconfigure(config: pytest.Config) -> None:
    warm.stop()
    config.stash[POSTGRES].stop()
    config.stash[FOLDER].cleanup()


@pytest.fixture(scope="session")
def template_url(request: pytest.FixtureRequest) -> str:
    """A migrated database that nobody may connect to while others clone it."""
    given: dict[str, str] = getattr(request.config, "workerinput", {})
    return given["template_url"] if given else request.config.stash[POSTGRES].start()


@pytest.fixture(scope="session")
def databases(template_url: str) -> Iterator[harness.Databases]:
    made = harness.Databases(template_url)
    yield made
    made.close()


def shares(request: pytest.FixtureRequest) -> bool:
    """Whether the test asks an application that others of its file use, too."""
    item = request.node
    return (
        not {"client", "transport"}.isdisjoint(item.fixturenames)
        and item.get_closest_marker("shared_application") is not None
        and item.get_closest_marker("own_application") is None
    )


@pytest.fixture(scope="module")
async def shared_application(databases: harness.Databases) -> AsyncIterator[SharedApplication]:
    shared = SharedApplication(databases.take())
    yield shared
    await shared.close()
    databases.drop(shared.database_url)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, databases: harness.Databases) -> Iterator[str]:
    """A fresh migrated database, or the one of the shared application."""
    if shares(request):
        yield request.getfixturevalue("shared_application").database_url
        return
    url = databases.take()
    yield url
    databases.drop(url)


@pytest.fixture
def query(database_url: str) -> Iterator[Callable[[str], Any]]:
    """The first value of what a query answers."""
    with psycopg.connect(harness.libpq(database_url), autocommit=True) as connection:

        def one(text: str) -> Any:
            row = connection.execute(text.encode()).fetchone()
            return row[0] if row else None

        yield one


@pytest.fixture
def server_url(database_url: str, template_url: str) -> str:
    """The same one, as applications and servers reach it."""
    return harness.with_role(database_url, template_url)


@pytest.fixture
def empty_database_url(template_url: str, databases: harness.Databases) -> Iterator[str]:
    """A fresh database without anything in it."""
    url = harness.clone(harness.with_database(template_url, "template0"), harness.unique_name(template_url))
    yield url
    databases.drop(url)


@pytest.fixture
def cluster_folder() -> Iterator[Path]:
    """For clusters of the test's own."""
    with clusters.folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def shared_database_url(databases: harness.Databases) -> Iterator[str]:
    """One migrated database per worker, for tests that leave nothing behind."""
    url = databases.take()
    yield url
    databases.drop(url)


@pytest.fixture
async def connection(shared_database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """In a transaction that is rolled back at the end."""
    opened = await psycopg.AsyncConnection.connect(harness.libpq(shared_database_url))
    async with opened:
        yield opened
        await opened.rollback()


Connect = Callable[[], Awaitable[psycopg.AsyncConnection]]


@pytest.fixture
async def connect(database_url: str) -> AsyncIterator[Connect]:
    """Opens autocommit connections to `database_url`."""
    async with AsyncExitStack() as stack:

        async def open_connection() -> psycopg.AsyncConnection:
            opened = await psycopg.AsyncConnection.connect(harness.libpq(database_url), autocommit=True)
            return await stack.enter_async_context(opened)

        yield open_connection


MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(server_url: str) -> MakeSettings:
    """Settings for `server_url`, with changes; neither `.env` nor the environment counts."""

    def make(**overrides: Any) -> Settings:
        fixed = {
            "_env_file": None,
            "database_url": server_url,
            **harness.PATIENT,
        }
        return Settings(**{**fixed, **overrides})

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
async def client(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the application in this process; override `settings` to change it."""
    if shares(request):
        shared: SharedApplication = request.getfixturevalue("shared_application")
        async with harness.client_of(await shared.get(settings)) as opened:
            yield opened
        return
    async with harness.opened(settings) as opened:
        yield opened


StartServer = Callable[..., harness.Server]


@pytest.fixture
def server(server_url: str, tmp_path: Path) -> Iterator[StartServer]:
    """Starts `fastpubsub server` on a free port and waits until it is ready: `server(api_num_workers=2).base_url`."""
    with ExitStack() as stack:

        def start(**settings: object) -> harness.Server:
            started = harness.start_server(["server"], tmp_path, {"database_url": server_url, **settings})
            stack.callback(started.stop)
            started.wait_until_ready()
            return started

        yield start


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(server_url: str, tmp_path: Path) -> Run:
    """Runs one `fastpubsub` command to its end: `run("create_client", "name", auth_enabled=True).stdout`."""

    def command(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        environment = harness.environment({"database_url": server_url, **settings})
        return warm.run(arguments, cwd=tmp_path, env=environment)

    return command
