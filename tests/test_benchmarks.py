"""The benchmark runs and counts right. How fast anything is, no test says."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from benchmarks import __main__ as main
from benchmarks import report
from benchmarks.__main__ import measure
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.load import Load
from benchmarks.ordering import InOrder
from benchmarks.pairs import Spread, interleave, ratio
from benchmarks.payloads import LARGE, SMALL, payload, payload_sql
from benchmarks.plan import SMOKE
from benchmarks.results import Delivery, Measure, Results, Verdict
from benchmarks.rows import ROWS
from benchmarks.verify import compare

Row = Callable[[Bench], list[Measure]]


def patient(row: Row) -> Row:
    """A busy machine may do nothing at all in a short time, also where no round is played: that row has more of it."""

    def measured(bench: Bench) -> list[Measure]:
        plan, costs = bench.plan, len(bench.results.costs)
        for seconds in (plan.seconds, 1.0):
            bench.plan = replace(plan, seconds=seconds)
            with suppress(BenchmarkError, ZeroDivisionError):
                found = row(bench)
                spent = [time for line in bench.results.costs[costs:] for time in (line.server, line.generator)]
                if all(value > 0 for one in found if one.spread for value in (*one.spread.values, *spent)):
                    break
            del bench.results.costs[costs:]
        else:
            bench.plan = replace(plan, seconds=4.0)
            found = row(bench)
        bench.plan = plan
        return found

    return measured


def measure_all(folder: Path) -> Results:
    """What is measured before and after the rows may find that nothing was done, too."""
    for seconds in (SMOKE.seconds, 1.0):
        results = measure(replace(SMOKE, seconds=seconds), list(ROWS), folder, None)
        if not results.failures:
            return results
    return measure(replace(SMOKE, seconds=4.0), list(ROWS), folder, None)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_row_finds_its_figures_and_no_message_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("wrk"), "this test needs the load generator wrk: apt-get install wrk"
    for name, row in ROWS.items():
        monkeypatch.setitem(ROWS, name, patient(row))
    results = measure_all(tmp_path)
    assert results.failures == []
    found = [one for one in results.measures if one.verdict is not Verdict.MISSING]
    assert found == results.measures
    assert len(found) == 66
    assert all(value > 0 for one in found for value in one.spread.values)  # type: ignore[union-attr]
    # A row that was measured again has looked again.
    assert len({one.name for one in results.deliveries}) == 8
    assert all(one.published > 0 for one in results.deliveries)
    assert results.is_whole, results.deliveries
    assert len(results.costs) == 10
    assert all(line.server > 0 and line.generator > 0 for line in results.costs)
    text = report.text(results)
    assert all(one.name in text for one in results.measures)
    report.save_json(results, tmp_path / "results.json")
    assert (tmp_path / "results.json").stat().st_size > len(text)


@pytest.mark.long
def test_layers_of_a_publish_have_their_figures() -> None:
    script = "from benchmarks import layers; layers.ROUNDS, layers.REQUESTS = 1, 16; layers.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6, done.stdout


@pytest.mark.parametrize("size", [SMALL, LARGE, 2048])
async def test_payloads_are_alike_wherever_they_are_made(connection: psycopg.AsyncConnection, size: int) -> None:
    cursor = await connection.execute(
        f"select {payload_sql('n', size)}::text from generate_series(105, 105) as n".encode()
    )
    row = await cursor.fetchone()
    assert row == (payload(105, size),)
    assert len(payload(105, size)) == size


@pytest.mark.parametrize("idle", [0, 1, 2])
def test_a_row_in_which_nothing_was_done_is_measured_again(tmp_path: Path, idle: int) -> None:
    seconds: list[float] = []

    def row(bench: Bench) -> list[Measure]:
        seconds.append(bench.plan.seconds)
        rate = 1.0 / 0 if len(seconds) == idle == 1 else float(len(seconds) > idle)
        return [Measure("one", 1, 1, Spread([rate]))]

    results = Results("")
    bench = Bench(SMOKE, tmp_path, None, None, results)  # type: ignore[arg-type]
    (found,) = patient(row)(bench)
    assert found.spread == Spread([1.0])
    assert seconds == [SMOKE.seconds, 1.0, 4.0][: idle + 1]
    assert bench.plan == SMOKE


def test_rounds_take_turns() -> None:
    played: list[tuple[str, float]] = []

    def arm(name: str, rate: float) -> float:
        played.append((name, rate))
        return rate

    above, below = interleave([lambda s: arm("a", 2 * s), lambda s: arm("b", s)], 3, seconds=10, warm_up_seconds=1)
    assert "".join(name for name, _ in played) == "ab" + "ab" + "ba" + "ab"
    assert ratio(above, below) == Spread([2.0, 2.0, 2.0])


def test_a_round_in_which_nothing_was_done_is_played_again() -> None:
    played: list[float] = []

    def arm(seconds: float) -> float:
        played.append(seconds)
        return 0.0 if seconds < 4 else seconds

    assert interleave([arm], 1, seconds=3, warm_up_seconds=1) == [Spread([6])]
    assert played == [1, 2, 4, 3, 6]


@pytest.mark.parametrize(("differences", "rounds"), [([0.0], 5), ([0.02, -0.02], 5), ([0.2, -0.2], 15)])
def test_rounds_that_differ_are_more(differences: list[float], rounds: int) -> None:
    rates = itertools.cycle(differences)
    spreads = interleave([lambda _: 1.0, lambda _: 1 + next(rates), lambda _: 2.0], 5, 1, 1, most_rounds=15)
    assert [len(spread.values) for spread in spreads] == [rounds] * 3


def test_rounds_become_no_more_once_they_agree() -> None:
    rates = iter([1.0, 1.0, 2.0, 1.0, 2.0, *[1.0] * 20])
    _, other = interleave([lambda _: 1.0, lambda _: next(rates)], 5, 1, 1, most_rounds=15)
    assert 5 < len(other.values) < 15


def test_a_rate_of_nothing_is_believed_in_the_end() -> None:
    assert interleave([lambda _: 0.0], 1, seconds=8, warm_up_seconds=10) == [Spread([0.0])]


def test_a_row_without_a_figure_says_so_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def idle(bench: Bench) -> list[Measure]:
        return [Measure("idle", 1, 1, ratio(*bench.rounds(lambda _: 1.0, lambda _: 0.0)))]

    def failing(_bench: Bench) -> list[Measure]:
        raise psycopg.OperationalError("the connection was closed")

    monkeypatch.setattr(main, "ROWS", {"idle": idle, "failing": failing, "one": lambda _: [Measure("one", 1, 1)]})
    monkeypatch.setattr(main, "_compare_noop", lambda bench: bench.rounds(lambda _: 1 / 0))
    monkeypatch.setattr(main, "verify", lambda _: None)
    results = Results("")
    main._all(Bench(SMOKE, tmp_path, None, None, results), ["idle", "failing", "one"])  # type: ignore[arg-type]
    assert [one.name for one in results.measures] == ["one"]
    noop, nothing, closed, again = results.failures
    assert noop == again == "the no-op route: ZeroDivisionError: division by zero"
    assert nothing.startswith("idle: one side did nothing in 1 of 1 rounds")
    assert closed == "failing: OperationalError: the connection was closed"
    assert "NO FIGURE for idle: one side did nothing" in report.text(results)


class Log:
    """A subscription whose consumers ack so many messages in a round, if they are there."""

    id = "orders"

    def __init__(self, tmp_path: Path, available: int, rate: float) -> None:
        self.topic = SimpleNamespace(
            service=SimpleNamespace(server=SimpleNamespace(address=""), save=lambda _: tmp_path)
        )
        self.available = available
        self.rate = rate
        self.rounds: list[int] = []
        self.refills: list[int] = []

    def metrics(self) -> dict[str, int]:
        return {"available": self.available}

    def refill(self, messages: int) -> None:
        self.refills.append(messages)
        self.available += messages

    def run(self, seconds: float) -> Load:
        acked = min(round(self.rate * seconds), self.available)
        self.available -= acked
        self.rounds.append(acked)
        return Load(acked, seconds, 0, {}, {"acked": acked}, {})


@pytest.fixture
def make_consumers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], tuple[Log, InOrder]]:
    monkeypatch.setattr("benchmarks.ordering.give_back", lambda _: None)

    def make(available: int, rate: float) -> tuple[Log, InOrder]:
        log = Log(tmp_path, available, rate)
        consumers = InOrder(log, log.refill)  # type: ignore[arg-type]
        monkeypatch.setattr(consumers, "run", log.run)
        return log, consumers

    return make


def test_a_round_that_came_to_the_end_of_its_log_is_played_again(
    make_consumers: Callable[[int, float], tuple[Log, InOrder]],
) -> None:
    log, consumers = make_consumers(1000, 300_000)
    assert [consumers.acked_per_second(1.0) for _ in range(5)] == [300_000.0] * 5
    assert log.rounds == [1000] + [300_000] * 5


def test_consumers_that_stand_still_before_a_full_log_are_believed(
    make_consumers: Callable[[int, float], tuple[Log, InOrder]],
) -> None:
    log, consumers = make_consumers(1000, 0)
    assert consumers.acked_per_second(1.0) == 0
    assert (log.rounds, log.refills) == ([0], [])


def test_consumers_that_empty_every_log_have_no_figure(
    make_consumers: Callable[[int, float], tuple[Log, InOrder]],
) -> None:
    _, consumers = make_consumers(1000, 1e12)
    with pytest.raises(BenchmarkError, match="ran empty again and again"):
        consumers.acked_per_second(1.0)


@pytest.mark.parametrize(
    ("values", "smaller_is_better", "verdict"),
    [
        ([0.8, 0.95, 1.1, 1.2, 1.3], False, Verdict.REACHED),
        ([0.8, 0.85, 1.1, 1.2, 1.3], False, Verdict.UNCLEAR),
        ([0.8, 0.85, 0.89, 1.2, 1.3], False, Verdict.MISSED),
        ([0.8, 1.0, 1.1, 1.2, 1.3], False, Verdict.AIM),
        ([0.7, 0.7, 0.8, 0.85, 1.3], True, Verdict.REACHED),
        ([0.7, 0.7, 0.8, 0.95, 1.3], True, Verdict.UNCLEAR),
        ([0.7, 0.7, 0.91, 0.95, 1.3], True, Verdict.MISSED),
        ([0.7, 0.7, 0.7, 0.75, 1.3], True, Verdict.AIM),
    ],
)
def test_the_worse_quartile_decides(values: list[float], smaller_is_better: bool, verdict: Verdict) -> None:
    aim = 0.75 if smaller_is_better else 1.0
    assert Measure("a ratio", 0.9, aim, Spread(values), "", smaller_is_better).verdict is verdict


def test_a_restless_machine_makes_a_run_void() -> None:
    results = Results("a run", noop=[Spread([0.95, 1.0, 1.05]), Spread([0.8, 0.89, 0.95])])
    assert results.is_void
    assert "VOID" in report.text(results)
    assert not Results("a run", noop=[Spread([0.7, 0.92, 1.3])]).is_void
    assert Results("a run", noop=[Spread([1.0])], code_changed=True).is_void


@pytest.mark.parametrize(
    ("pulled", "found"),
    [
        ("a 1\nb 2\nc 3\n", (0, 0)),
        ("a 1\n", (1, 0)),
        ("a 1\nb 2\na 1\n", (0, 1)),
        ("a 1\nb 2\nc 1\n", (0, 1)),
    ],
    ids=["each once, one of them unanswered", "lost", "delivered twice", "stored twice"],
)
def test_messages_are_compared_one_by_one(tmp_path: Path, pulled: str, found: tuple[int, int]) -> None:
    answers, pulls = tmp_path / "answered", tmp_path / "pulled"
    answers.write_text("a\nb\n")
    pulls.write_text(pulled)
    assert compare(answers, pulls) == found


@pytest.mark.parametrize(("lost", "twice"), [(1, 0), (0, 1)])
def test_what_is_lost_or_comes_twice_shows(lost: int, twice: int) -> None:
    results = Results("a run", deliveries=[Delivery("a queue", 10, 0, None), Delivery("another", 10, lost, twice)])
    assert not results.is_whole
    assert f"{lost} lost, {twice} delivered twice" in report.text(results)
