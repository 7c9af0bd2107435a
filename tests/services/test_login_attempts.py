"""Wrong secrets are counted, and lock nobody out."""

from uuid import uuid4

import pytest

from fastpubsub.config import Settings
from fastpubsub.exceptions import TooManyRequests, Unauthenticated, Unavailable
from fastpubsub.models import TokenRequest
from fastpubsub.services import login_attempts
from fastpubsub.services.login_attempts import MAX_COUNTED, MAX_KNOWN, LoginAttempts

VICTIM = str(uuid4())
HERE, ELSEWHERE = "192.0.2.1", "198.51.100.1"
RIGHT, WRONG = "right", "wrong"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock, per_client: int = 3, per_address: int = 10) -> LoginAttempts:
    settings = Settings(
        _env_file=None, auth_max_failures_per_client=per_client, auth_max_failures_per_address=per_address
    )
    return LoginAttempts(settings, clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(counted: LoginAttempts, secret: str, client_id: str = VICTIM, address: str | None = HERE) -> int:
    """The status, or the seconds to wait below zero."""
    try:
        with counted.watch(TokenRequest(client_id=client_id, client_secret=secret), address):
            if secret != RIGHT:
                raise Unauthenticated("wrong")
    except Unauthenticated as error:
        return error.status
    except TooManyRequests as error:
        return -error.retry_after_seconds
    return 201


def test_a_client_from_one_address(clock: Clock) -> None:
    counted = made(clock, per_client=30, per_address=1000)
    assert [ask(counted, WRONG) for _ in range(32)] == [401] * 30 + [-2, -2]
    clock.now += 1
    assert ask(counted, WRONG) == -1
    clock.now += 1
    assert [ask(counted, WRONG) for _ in range(2)] == [401, -2]
    clock.now += 3600
    assert [ask(counted, WRONG) for _ in range(31)] == [401] * 30 + [-2]


def test_guesses_at_the_same_time_are_waited_for_later(clock: Clock) -> None:
    """None is counted before its secret was looked at, so all of them are let through, but not more on the average."""
    counted = made(clock, per_client=30, per_address=1000)
    guess = TokenRequest(client_id=VICTIM, client_secret=WRONG)
    begun = [counted.watch(guess, HERE) for _ in range(100)]
    for one in begun:
        one.__enter__()
    wrong = Unauthenticated("wrong")
    for one in begun:
        assert not one.__exit__(Unauthenticated, wrong, None)
    assert ask(counted, WRONG) == -2 * (100 - 30 + 1)
    clock.now += 2 * (100 - 30)
    assert ask(counted, WRONG) == -2
    clock.now += 2
    assert [ask(counted, WRONG) for _ in range(2)] == [401, -2]
    assert ask(counted, WRONG, address=ELSEWHERE) == 401


def test_an_address_with_many_clients(clock: Clock) -> None:
    counted = made(clock)
    assert [ask(counted, WRONG, str(uuid4())) for _ in range(11)] == [401] * 10 + [-6]
    assert ask(counted, WRONG, address=ELSEWHERE) == 401


def test_nobody_is_locked_out_from_elsewhere(clock: Clock) -> None:
    counted = made(clock)
    for number in range(1000):
        ask(counted, WRONG, address=f"203.0.113.{number % 250}")
    assert ask(counted, RIGHT) == 201


def test_what_was_right_lately_is_let_through_beside_a_guesser(clock: Clock) -> None:
    counted = made(clock)
    assert ask(counted, RIGHT) == 201
    for _ in range(100):
        ask(counted, WRONG)
        ask(counted, WRONG, str(uuid4()))
    assert ask(counted, WRONG) < 0
    assert ask(counted, RIGHT) == 201
    assert ask(counted, RIGHT, str(uuid4())) < 0, "another client's secret is not known"


def test_a_secret_that_was_right_once_is_counted_again(clock: Clock) -> None:
    counted = made(clock)
    ask(counted, RIGHT)

    def gone() -> None:
        with counted.watch(TokenRequest(client_id=VICTIM, client_secret=RIGHT), HERE):
            raise Unauthenticated("the client was deleted")

    for _ in range(3):
        with pytest.raises(Unauthenticated):
            gone()
    with pytest.raises(TooManyRequests):
        gone()


def test_right_secrets_and_trouble_cost_nothing(clock: Clock) -> None:
    counted = made(clock, per_client=1, per_address=1)
    assert {ask(counted, RIGHT, str(uuid4())) for _ in range(100)} == {201}
    for _ in range(10):
        with pytest.raises(Unavailable), counted.watch(TokenRequest(client_id=VICTIM, client_secret=WRONG), HERE):
            raise Unavailable("the database is away")
    assert ask(counted, WRONG) == 401


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        (None, "no address", True),
    ],
)
def test_who_counts_as_one(clock: Clock, one: str | None, other: str, same: bool) -> None:
    counted = made(clock, per_client=1)
    ask(counted, WRONG, address=one)
    assert (ask(counted, WRONG, address=other) < 0) == same


def test_spellings_of_an_id_count_as_one(clock: Clock) -> None:
    counted = made(clock)
    spellings = [VICTIM, VICTIM.upper(), f"{{{VICTIM}}}", f"urn:uuid:{VICTIM}"]
    assert [ask(counted, WRONG, spelling) for spelling in spellings] == [401, 401, 401, -20]
    assert [ask(counted, WRONG, name, ELSEWHERE) for name in ("", "a", "b" * 10_000, "c")] == [401, 401, 401, -20]


def test_zero_is_no_bound(clock: Clock) -> None:
    counted = made(clock, per_client=0, per_address=0)
    assert {ask(counted, WRONG) for _ in range(1000)} == {401}


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (MAX_COUNTED, MAX_KNOWN) == (10_000, 10_000)
    for name in ("MAX_COUNTED", "MAX_KNOWN"):
        monkeypatch.setattr(login_attempts, name, 100)
    counted = made(clock)
    for number in range(1000):
        ask(counted, WRONG, str(uuid4()), f"10.0.{number // 250}.{number % 250}")
        ask(counted, RIGHT, str(uuid4()))
    sizes = {len(counted._known), len(counted._of_clients._buckets), len(counted._of_addresses._buckets)}
    assert sizes == {100}
