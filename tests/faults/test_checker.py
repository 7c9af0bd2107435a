"""The checker itself: it finds nothing in good histories, and in bad ones what was planted."""

import functools
import pickle
import random
from pathlib import Path

import pytest

from tests.faults import plants_of_keeping
from tests.faults.checker import CHECKS, check
from tests.faults.history import Event, History, Kind, in_flight
from tests.faults.plan import Plan
from tests.faults.plants import PLANTS
from tests.faults.synthetic import KEPT_PLAN, PLAN, Plant, Queue, acked, pull_again, pulls

SEEDS = range(40)


@functools.cache
def pickled(seed: int, is_kept: bool) -> bytes:
    """To make a history takes as long as to check it."""
    return pickle.dumps(Queue(seed, plan_of(is_kept=is_kept)).history())


def plan_of(*, is_kept: bool) -> Plan:
    return KEPT_PLAN if is_kept else PLAN


def history_of(seed: int, *, is_kept: bool = False) -> History:
    """One of its own for whoever plants something into it."""
    made: History = pickle.loads(pickled(seed, is_kept))
    return made


@pytest.mark.parametrize("seed", SEEDS)
def test_good_histories(seed: int) -> None:
    for is_kept in (False, True):
        assert check(plan_of(is_kept=is_kept), history_of(seed, is_kept=is_kept)) == []


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_what_is_planted_is_found(plant: Plant) -> None:
    is_kept = plant in plants_of_keeping.PLANTS
    for seed in SEEDS[:12]:
        history = history_of(seed, is_kept=is_kept)
        plant(history, random.Random(seed))
        assert plant.__name__ in {violation.kind for violation in check(plan_of(is_kept=is_kept), history)}, seed


def test_each_check_has_something_planted() -> None:
    assert [check.__name__ for check in CHECKS] == [plant.__name__ for plant in PLANTS]


def test_what_was_not_drained_is_found() -> None:
    history = Queue(0).history()
    history.events = [event for event in history.events if event.op != "end"]
    assert "counts" in {violation.kind for violation in check(PLAN, history)}


def test_a_crash_of_the_database_excuses_a_claim_but_no_ack() -> None:
    history = Queue(0).history()
    at = next(at for at in pulls(history, "t.poison") if history.events[at].value["messages"][0][3] == 2)
    message = history.events[at].value["messages"][0]
    pull_again(history, at, expires=message[4] + 0.5, attempt=message[3])
    assert {"overlap", "attempts"} <= {violation.kind for violation in check(PLAN, history)}
    history.events.append(Event(history.events[at].time - 1.0, "campaign", Kind.NOTE, "crash"))
    assert {"overlap", "attempts"} <= {violation.kind for violation in check(PLAN, history)}
    history.events.append(Event(history.events[at].time + 0.1, "campaign", Kind.NOTE, "crashed"))
    assert not {"overlap", "attempts"} & {violation.kind for violation in check(PLAN, history)}
    pull_again(history, acked(history)[0])
    assert "redelivered" in {violation.kind for violation in check(PLAN, history)}


def test_a_history_survives_being_written(tmp_path: Path) -> None:
    history = Queue(1).history()
    history.save(tmp_path / "history.jsonl")
    loaded = History.load(tmp_path / "history.jsonl")
    assert check(PLAN, loaded) == []
    assert len(loaded.events) == len(history.events)


def test_what_was_in_flight() -> None:
    events = [Event(time, who, Kind.INVOKE, "publish", {}) for time, who in ((1.0, "a"), (2.0, "b"), (4.0, "c"))]
    history = History([*events, Event(3.0, "a", Kind.OK, "publish", {})])
    assert [in_flight(history.calls(), moment) for moment in (0.5, 1.5, 2.5, 3.5, 9.0)] == [0, 1, 2, 1, 2]
