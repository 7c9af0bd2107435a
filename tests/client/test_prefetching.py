"""How much a worker may hold ready for its handlers."""

import pytest

from fastpubsub.client.prefetching import MAX_PREFETCH, Prefetch


def after(*handlers: float, concurrency: int = 10, seconds: float = 1.0) -> Prefetch:
    prefetch = Prefetch(concurrency, seconds)
    for took in handlers:
        prefetch.finished(took)
    return prefetch


@pytest.mark.parametrize(
    ("handlers", "limit"),
    [
        ([], 0),
        ([0.0], MAX_PREFETCH),
        ([0.1], 100),
        ([0.5], 20),
        ([1.0], 10),
        ([10.1], 0),
        ([0.001, 10.1], 0),
        ([10.1, 0.001], 1),
        ([1.0] + [0.0] * 100, MAX_PREFETCH),
    ],
)
def test_as_much_as_the_handlers_begin_in_that_time(handlers: list[float], limit: int) -> None:
    """At the pace of the slow ones, which count at once."""
    assert after(*handlers).limit == limit


def test_no_time() -> None:
    assert after(0.001, seconds=0).limit == 0


def test_the_lease_bounds_it() -> None:
    prefetch = after(0.1)
    prefetch.leased(1)
    assert (prefetch.seconds, prefetch.limit) == (0.5, 50)
    prefetch.leased(60)
    assert (prefetch.seconds, prefetch.limit) == (1.0, 100)


def test_after_one_that_waited_for_too_long() -> None:
    prefetch = after(0.001)
    prefetch.overdue()
    assert prefetch.limit == 0
