"""One mistake of each kind with times, limits, shares and transactions, planted into a good history."""

import random

from tests.faults.history import History, Kind, Number
from tests.faults.plan import MAX_IN_FLIGHT, RATE_LIMIT
from tests.faults.sharing import MORE
from tests.faults.synthetic import Plant, change, pull_again, pulls


def number_at(history: History, at: int) -> Number:
    return Number(*history.events[at].value["messages"][0][0])


def held(history: History, _: random.Random) -> None:
    """Nobody purged the first dead letter, and its key went on."""
    at = next(at for at, event in enumerate(history.events) if event.op == "purge" and event.kind is Kind.INVOKE)
    del history.events[at : at + 2]


def delayed(history: History, rng: random.Random) -> None:
    late = [at for at in pulls(history, "timed.dropping") if number_at(history, at).delay_seconds]
    pull_again(history, rng.choice(late), message_id="another")


def times(history: History, rng: random.Random) -> None:
    at = rng.choice([at for at in pulls(history, "ticks.all") if history.events[at].value["messages"]])
    number = history.events[at].value["messages"][0][0]
    for index in pulls(history, "ticks.all"):
        if history.events[index].value["messages"][0][0] == number:
            change(
                history,
                index,
                messages=[[[*number[:1], number[1] + 1000, 0], *history.events[index].value["messages"][0][1:]]],
            )


def expired(history: History, rng: random.Random) -> None:
    """A message whose time was over long ago."""
    at = rng.choice(pulls(history, "timed.dropping"))
    publisher, request, _ = number_at(history, at)
    pull_again(history, at, number=[publisher, request, (1 - request) % 3])


def pull_many(history: History, at: int, count: int) -> None:
    """The same message so often, at the same time: other checks may say what they like about that."""
    pull_again(history, at)
    (message,) = history.events[-1].value["messages"]
    change(history, -1, messages=[[*message[:2], f"{message[2]}{number}", *message[3:]] for number in range(count)])


def in_flight(history: History, rng: random.Random) -> None:
    pull_many(history, rng.choice(pulls(history, "limited.in-flight")), MAX_IN_FLIGHT + 1)


def rate(history: History, rng: random.Random) -> None:
    pull_many(history, rng.choice(pulls(history, "limited.rate")), RATE_LIMIT + 2)


def moved(history: History, rng: random.Random) -> None:
    number = number_at(history, rng.choice(pulls(history, "moved.all")))
    for index in pulls(history, "moved.all"):
        if history.events[index].value["messages"] and number_at(history, index) == number:
            change(history, index, messages=[])


def booked(history: History, rng: random.Random) -> None:
    """Not at all, or twice."""
    at = next(at for at, event in enumerate(history.events) if event.op == "booked")
    numbers = history.events[at].value["numbers"]
    change(history, at, numbers=rng.choice([numbers[1:], [*numbers, numbers[0]]]))


def fair(history: History, _: random.Random) -> None:
    """The first claim of a tenant has as well what is last of the noisy one, which is behind all others."""
    places = pulls(history, "shared.fair")
    first = next(at for at in places if number_at(history, at).tenant != "noisy")
    (message,) = history.events[first].value["messages"]
    noisy = {number_at(history, at): history.events[at].value["messages"][0] for at in places}
    last = [one for number, one in noisy.items() if number.tenant == "noisy"][-2 * MORE :]
    change(history, first, messages=[message, *([*one[:2], *message[2:]] for one in last)])


PLANTS: tuple[Plant, ...] = (held, delayed, times, expired, in_flight, rate, moved, booked, fair)
