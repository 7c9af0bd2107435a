"""Stores: the procedures on a connection that is rolled back, or on several that commit."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import ParamSpec, TypeVar

import pytest

from tests.database.store import Store, connect
from tests.harness import libpq

P = ParamSpec("P")
T = TypeVar("T")


FRESH = {
    f"test_{name}"
    for name in (
        *("arrays", "calls", "claim_messages", "clients", "dead_letter_topic", "dead_letters", "delayed_messages"),
        *("deleting", "failures", "figures", "history", "locks", "metrics", "model", "pause_subscription", "planning"),
        *("plans", "publish", "publish_messages", "relay_messages", "rhythms", "roles", "room_in_flight", "schedules"),
        *("sessions", "settle_and_claim", "settlements", "storage_rules", "usual_case"),
    )
}
"""Files whose tests look at plans, at sessions, or at what statements read: they get a session of their own each."""


class Sessions:
    """One for many tests, in which procedures keep their plans: to make these takes most of a short test."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: Store | None = None

    def take(self) -> Store:
        if self._opened is None or self._opened.connection.closed:
            self._opened = connect(self._url, autocommit=False)
        return self._opened

    def give_back(self) -> None:
        """Nothing of a test is left, not even what outlives a transaction."""
        if self._opened is not None and not self._opened.connection.closed:
            self._opened.connection.rollback()
            self._opened.execute("select pg_advisory_unlock_all()")
            self._opened.connection.commit()

    def close(self) -> None:
        if self._opened is not None:
            self._opened.connection.close()


@pytest.fixture(scope="session")
def sessions(shared_database_url: str) -> Iterator[Sessions]:
    made = Sessions(libpq(shared_database_url))
    with closing(made):
        yield made


@pytest.fixture
def store(request: pytest.FixtureRequest, shared_database_url: str, sessions: Sessions) -> Iterator[Store]:
    """In a transaction that is rolled back at the end."""
    if request.path.stem not in FRESH:
        yield sessions.take()
        sessions.give_back()
        return
    opened = connect(libpq(shared_database_url), autocommit=False)
    with closing(opened.connection):
        yield opened
        opened.connection.rollback()


OpenStore = Callable[[], Store]


@pytest.fixture
def open_store(database_url: str) -> Iterator[OpenStore]:
    """Opens stores of one fresh database whose every call commits."""
    with ExitStack() as stack:

        def open_one() -> Store:
            opened = connect(libpq(database_url), autocommit=True)
            stack.enter_context(closing(opened.connection))
            # A slow machine must not look like a lost lock.
            opened.execute("set fastpubsub.lock_timeout = '100s'")
            return opened

        yield open_one


class Background:
    """Calls in threads of their own."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def __call__(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        return self._pool.submit(call, *arguments, **named)


@pytest.fixture
def background(open_store: OpenStore) -> Iterator[Background]:
    """Needs the stores, so that its threads end before their connections do."""
    with ThreadPoolExecutor() as pool:
        yield Background(pool)
