"""Consuming fairly beside consuming the same messages as they come, and what others pay who do not."""

from benchmarks.bench import Bench
from benchmarks.consume import Consumer
from benchmarks.features import UNUSED, measure, publish_by_100
from benchmarks.ordering import BATCH, FIRST_FILL, InOrder, refills
from benchmarks.results import Measure

FAIR_BY = "attributes.tenant"
TENANTS = {"one tenant": "0", "16 tenants": "n % 16"}
"""Of which messages wait."""

GOALS = (0.4, 0.7)


def fair(bench: Bench) -> list[Measure]:
    return [*(_used(bench, name) for name in TENANTS), *_unused(bench)]


def _used(bench: Bench, name: str) -> Measure:
    with bench.service() as service:
        topic = service.create_topic(keep=True)
        refill = refills(topic, tenants=TENANTS[name])
        refill(min(FIRST_FILL, bench.plan.backlog))
        arms = [InOrder(topic.subscribe(fair_by=fair_by), refill) for fair_by in (FAIR_BY, "")]
        shared, plain = bench.rounds(*(arm.acked_per_second for arm in arms))
    return measure(f"pull + ack by 100, shared, {name} ÷ not shared", GOALS, shared, plain)


def _unused(bench: Bench) -> list[Measure]:
    """Nobody reads the others, so that the log of both topics is kept."""
    with bench.service() as service:
        topics = [service.create_topic(), service.create_topic()]
        plain = [topic.subscribe() for topic in topics]
        for topic, fair_by in zip(topics, (FAIR_BY, ""), strict=True):
            topic.subscribe(fair_by=fair_by)
        beside, alone = bench.rounds(*(Consumer(one, BATCH).acked_per_second for one in plain))
        published, alike = bench.rounds(*(publish_by_100(topic) for topic in topics))
    return [
        measure("pull + ack by 100, beside a fair subscription ÷ without", UNUSED, beside, alone),
        measure("publish by 100, a fair subscription ÷ none", UNUSED, published, alike),
    ]
