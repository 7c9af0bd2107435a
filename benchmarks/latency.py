"""Latency at half load: of a publish, and of a message on its way to a consumer that waits for it."""

import statistics

from benchmarks import raw
from benchmarks.arrivals import Arrivals
from benchmarks.bench import Bench, replay
from benchmarks.errors import BenchmarkError
from benchmarks.paced import Paced
from benchmarks.pairs import Spread, ratio
from benchmarks.payloads import payload
from benchmarks.results import Measure
from benchmarks.service import Service, Topic

_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
_ARRIVAL_SECONDS = 5.0

Latencies = list[tuple[float, float]]
"""When a message was due, in seconds since the start, and after how many seconds it was there."""


def latency(bench: Bench) -> list[Measure]:
    """Half of what a closed loop publishes while its messages are consumed; every message by its own number."""
    rounds: list[tuple[Latencies, Latencies]] = []
    with bench.service() as service:
        topic = service.create_topic()
        subscription = topic.subscribe()
        with Arrivals(subscription) as arrivals:
            publish = replay(service.server, service.save(_request(topic, 0)))
            publish(bench.plan.warm_up_seconds)
            rate = publish(bench.plan.seconds).rate / 2
            subscription.wait_until_settled()
            seconds = bench.plan.latency_seconds / bench.plan.pairs
            rounds += [measure_round(service, topic, arrivals, rate, seconds) for _ in range(bench.plan.pairs)]
        subscription.wait_until_settled()
        bench.check_totals("publish to waiting consumers", subscription)
    published, arrived = ([one[place] for one in rounds] for place in (0, 1))
    for name, latencies in (("publish", published), ("publish to waiting consumer", arrived)):
        _note(bench, f"{name} at {rate:,.0f} per s, half of what a closed loop reached", latencies)
    _keep_series(bench, published[0])
    p50 = Spread([percentile(latencies, "p50") for latencies in published])
    return [_measure(name, must, aim, arrived, p50) for name, must, aim in (("p50", 3, 2), ("p99", 15, 8))]


def _measure(which: str, must: float, aim: float, arrived: list[Latencies], p50: Spread) -> Measure:
    found = Spread([percentile(latencies, which) for latencies in arrived])
    figures = f"{found.median * 1000:.2f} ÷ {p50.median * 1000:.2f} ms"
    name = f"publish to waiting consumer, {which} ÷ p50 of a publish"
    return Measure(name, must, aim, ratio(found, p50), figures, smaller_is_better=True)


def measure_round(
    service: Service, topic: Topic, arrivals: Arrivals, rate: float, seconds: float
) -> tuple[Latencies, Latencies]:
    arrivals.take()
    paced = Paced(service.server, lambda number: _request(topic, number))
    paced.run(rate, seconds)
    arrived = arrivals.take_all(range(len(paced.due)), _ARRIVAL_SECONDS)
    if len(arrived) < len(paced.due):
        raise BenchmarkError(f"{len(paced.due) - len(arrived)} of {len(paced.due)} messages did not arrive")
    start = paced.due[0]
    return (
        [(due - start, paced.latencies[number]) for number, due in enumerate(paced.due)],
        [(due - start, arrived[number] - due) for number, due in enumerate(paced.due)],
    )


def _request(topic: Topic, number: int) -> bytes:
    return raw.publish(topic.id, f"[{payload(number)}]".encode())


def percentile(latencies: Latencies, name: str) -> float:
    ordered = sorted(seconds for _, seconds in latencies)
    return ordered[min(len(ordered) - 1, int(_PERCENTILES[name] * len(ordered)))]


def _note(bench: Bench, what: str, rounds: list[Latencies]) -> None:
    medians = {name: statistics.median(percentile(one, name) * 1000 for one in rounds) for name in _PERCENTILES}
    found = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in medians.items())
    longest = max(seconds * 1000 for one in rounds for _, seconds in one)
    bench.results.notes.append(f"{what}, in ms from when each was due: {found}, at most {longest:.1f}")


def _keep_series(bench: Bench, latencies: Latencies) -> None:
    by_second: dict[float, Latencies] = {}
    for due, seconds in latencies:
        by_second.setdefault(int(due), []).append((due, seconds))
    for name in ("p50", "p99"):
        points = [(second, percentile(some, name) * 1000) for second, some in sorted(by_second.items())]
        bench.results.series[f"publish {name}, ms"] = points
