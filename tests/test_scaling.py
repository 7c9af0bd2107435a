"""The plan for more messages: what is simulated and multiplied is right; how fast anything is, no test says."""

from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.scaling import Measured, Sample, costs_of, machines
from benchmarks.simulation import Costs, closed_loop, simulate

FEW = Sample(rate=1000, server=100e-6, postgres=60e-6, generator=10e-6, calls=0.5, wal_bytes=1200)
MANY = Sample(rate=100, server=1000e-6, postgres=1100e-6, generator=100e-6, calls=1.0, wal_bytes=120_000)


def test_a_server_that_is_all_there_is_sets_the_rate() -> None:
    outcome = simulate(16, Costs(server=1e-3, generator=0, call=1e-6, request_in_call=0, commit=0))
    assert outcome.rate == pytest.approx(1000, rel=0.01)


def test_a_single_caller_waits_for_one_after_the_other() -> None:
    outcome = simulate(1, Costs(server=1e-3, generator=0, call=1e-3, request_in_call=1e-3, commit=2e-3))
    assert outcome.rate == pytest.approx(200, rel=0.01)
    assert outcome.calls == 1


def test_callers_share_a_slow_commit_in_two_groups_that_take_turns() -> None:
    """As measured: 0.126 commits for each of 16 publishers, in benchmarks/README.md."""
    outcome = simulate(16, Costs(server=1e-6, generator=0, call=0, request_in_call=0, commit=10e-3))
    assert outcome.rate == pytest.approx(800, rel=0.05)
    assert outcome.calls == pytest.approx(1 / 8, rel=0.05)


def test_programs_share_the_cores() -> None:
    costs = Costs(server=1e-3, generator=1e-3, call=0, request_in_call=2e-3, commit=0)
    assert closed_loop(16, costs, cores=2).rate == pytest.approx(500, rel=0.01)
    assert closed_loop(16, costs, cores=1).rate == pytest.approx(250, rel=0.01)


def test_costs_between_those_that_were_measured() -> None:
    ends = costs_of(FEW, MANY, 1, 1e-3), costs_of(FEW, MANY, 100, 1e-3)
    for costs, sample in zip(ends, (FEW, MANY), strict=True):
        assert costs.server == pytest.approx(sample.server)
        assert costs.request_in_call + sample.calls * costs.call == pytest.approx(sample.postgres)
    assert FEW.server < costs_of(FEW, MANY, 10, 1e-3).server < MANY.server


def test_what_is_known_predicts_itself() -> None:
    measured = Measured(FEW, FEW, MANY, MANY, 1e-3, 2)
    slower = FEW.rate / measured.rate(1) * MANY.rate / measured.rate(100)
    assert measured.predicted_rate() == pytest.approx(measured.rate(10) * slower**0.5)


def test_the_ceiling_of_a_topic_is_not_above_what_its_server_can_do() -> None:
    measured = Measured(FEW, FEW, MANY, MANY, 1e-3, 2)
    assert 0 < measured.ceiling() <= 100 / MANY.server
    assert Measured(FEW, FEW, MANY, MANY, 50e-3, 2).ceiling() < measured.ceiling()


def test_machines_grow_with_the_rate_and_say_what_limits_them() -> None:
    small, large = (machines(rate, MANY, MANY, 10_000) for rate in (1_000, 1_000_000))
    assert (small.processes, small.nodes, small.parts) == (1, 1, 1)
    assert (large.processes, large.parts) == (50, 100)
    assert (large.nodes, large.limit) == (18, "bytes of WAL")
    hungry = Sample(rate=100, server=0, postgres=1.0, generator=0, calls=1, wal_bytes=1)
    assert machines(100_000, hungry, hungry, 10_000).limit == "CPU of PostgreSQL"


def measure(folder: Path) -> Measured:
    """A busy machine may do nothing at all in a short time."""
    with suppress(ZeroDivisionError):
        measured = scaling.measure(str(folder), seconds=0.5, rounds=1)
        if least(measured) > 0:
            return measured
    return scaling.measure(str(folder), seconds=4.0, rounds=1)


def least(measured: Measured) -> float:
    samples = (measured.few, measured.between, measured.many, measured.consumed)
    return min(min(one.rate, one.server, one.postgres, one.wal_bytes) for one in samples)


@pytest.mark.long
def test_a_run_measures_and_prints_everything(tmp_path: Path) -> None:
    measured = measure(tmp_path)
    assert least(measured) > 0
    assert measured.few.server > measured.many.server / 100, "a message alone costs more than one of many"
    lines = [*scaling.cost_lines(measured), *scaling.prediction_lines(measured), *scaling.machine_lines(measured)]
    assert len(lines) == 6 + 2 + 2 + len(scaling.RATES)
