"""Latency at half load: of a publish, and of a message on its way to a waiting consumer."""

from benchmarks import raw
from benchmarks.bench import Bench, replay
from benchmarks.paced import Paced
from benchmarks.payloads import batch
from benchmarks.results import Measure

NO_WAITING = "no waiting pulls yet: a pull cannot wait for a message (wait_seconds)"
_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def latency(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        topic = service.create_topic()
        topic.subscribe()
        request = raw.publish(topic.id, batch(1))
        publish = replay(service.server, service.save(request))
        publish(bench.plan.warm_up_seconds)
        rate = publish(bench.plan.seconds).rate / 2
        paced = Paced(service.server, request)
        paced.run(rate, bench.plan.latency_seconds)
    milliseconds = sorted(seconds * 1000 for _, seconds in paced.latencies)
    found = ", ".join(f"{name} {_percentile(milliseconds, share):.1f}" for name, share in _PERCENTILES.items())
    bench.results.notes.append(
        f"publish at {rate:,.0f} per s, half of what a closed loop reached, in ms from when each was due: "
        f"{found}, at most {milliseconds[-1]:.1f}"
    )
    _keep_series(bench, paced.latencies)
    return [
        Measure("publish to waiting consumer, p50 ÷ p50 of a publish", 3, 2, None, NO_WAITING, smaller_is_better=True),
        Measure("publish to waiting consumer, p99 ÷ p50 of a publish", 15, 8, None, NO_WAITING, smaller_is_better=True),
    ]


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _keep_series(bench: Bench, latencies: list[tuple[float, float]]) -> None:
    by_second: dict[float, list[float]] = {}
    for due, seconds in latencies:
        by_second.setdefault(int(due), []).append(seconds * 1000)
    series = bench.results.series
    for name in ("p50", "p99"):
        points = [(second, _percentile(sorted(ms), _PERCENTILES[name])) for second, ms in sorted(by_second.items())]
        series[f"publish {name}, ms"] = points
