"""How many requests an endpoint gets at once."""

from fastpubsub.push.pacing import FIRST_CONCURRENCY, HALVING_SECONDS, Concurrency


def play_round(concurrency: Concurrency) -> int:
    """As many answers as were on their way; the limit after them."""
    for _ in range(concurrency.limit):
        concurrency.succeeded()
    return concurrency.limit


def test_it_doubles_with_each_round_up_to_the_most() -> None:
    concurrency = Concurrency(20)
    assert concurrency.limit == FIRST_CONCURRENCY == 4
    assert [play_round(concurrency) for _ in range(4)] == [8, 16, 20, 20]
    assert Concurrency(2).limit == 2


def test_one_that_cannot_keep_up_gets_half_and_then_one_more_with_each_round() -> None:
    concurrency = Concurrency(100)
    while play_round(concurrency) < 64:
        pass
    concurrency.overloaded(now=10.0)
    concurrency.overloaded(now=10.0 + HALVING_SECONDS / 2)
    assert concurrency.limit == 32
    grown = [play_round(concurrency) for _ in range(3)]
    assert all(after - before in (0, 1) for before, after in zip([32, *grown], grown, strict=False))
    assert grown[-1] in (34, 35)
    concurrency.overloaded(now=10.0 + HALVING_SECONDS)
    assert concurrency.limit == 17


def test_the_last_one_is_never_taken() -> None:
    concurrency = Concurrency(4)
    for second in range(10):
        concurrency.overloaded(now=float(second + 1))
    assert concurrency.limit == 1
    assert play_round(concurrency) == 2
