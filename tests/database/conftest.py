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


@pytest.fixture
def store(shared_database_url: str) -> Iterator[Store]:
    """In a transaction that is rolled back at the end."""
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
