"""What those pay who do not use a feature: for settings that nothing comes of, and beside those who use it."""

from benchmarks.bench import Bench
from benchmarks.consume import Consumer
from benchmarks.errors import BenchmarkError
from benchmarks.features import DAY_SECONDS, UNUSED, measure, publish_by_100
from benchmarks.filters import FILTER
from benchmarks.results import Measure
from benchmarks.service import Subscription, Topic

BATCH = 100
FAILED = 10_000
MANY = 100


def unused(bench: Bench) -> list[Measure]:
    """Each with a topic of its own, in the same rounds."""
    with bench.service() as service:
        makers = {
            "dead_letter_topic": with_dead_letter_topic,
            "expire_after_seconds": lambda topic: topic.subscribe(expire_after_seconds=DAY_SECONDS),
            f"{FAILED:,} failures kept": with_failures,
            "a fork": beside_fork,
        }
        subscriptions = [make(service.create_topic()) for make in makers.values()]
        plain = beside_another(service.create_topic())
        rates = bench.rounds(*(Consumer(one, BATCH).acked_per_second for one in (plain, *subscriptions)))
    return [
        measure(f"pull + ack by 100, {name} ÷ without", UNUSED, found, rates[0])
        for name, found in zip(makers, rates[1:], strict=True)
    ]


def many_filters(bench: Bench) -> list[Measure]:
    """Nobody reads the others."""
    with bench.service() as service:
        arms = []
        for wanted in (FILTER, None):
            topic = service.create_topic()
            for _ in range(MANY):
                topic.subscribe(filter=wanted)
            arms.append(publish_by_100(topic))
        filtered, plain = bench.rounds(*arms)
    return [measure(f"publish by 100, {MANY} subscriptions with a filter ÷ without", UNUSED, filtered, plain)]


def with_dead_letter_topic(topic: Topic) -> Subscription:
    return topic.subscribe(dead_letter_topic=topic.service.create_topic().id)


def beside_another(topic: Topic) -> Subscription:
    topic.subscribe()
    return topic.subscribe()


def beside_fork(topic: Topic) -> Subscription:
    """Both have all that comes."""
    original = topic.subscribe()
    topic.service.post("/subscriptions", {"id": f"{original.id}-fork", "topic_id": topic.id, "fork_of": original.id})
    return original


def with_failures(topic: Topic) -> Subscription:
    """Beside another subscription, each of whose messages has failed once and died."""
    other, subscription = topic.subscribe(), topic.subscribe()
    topic.fill(FAILED)
    topic.service.one(
        "select count(fastpubsub.reject_messages_2(%s, %s, c.positions, "
        "array_fill(c.token, array[cardinality(c.positions)]), c.created_at, "
        "array_fill('it failed'::text, array[cardinality(c.positions)]))) "
        "from fastpubsub.claim_messages_2(%s, %s, %s, '{c}', 1000000000) as c",
        *(topic.key, other.key, topic.key, other.key, [FAILED]),
    )
    query = "select count(*) from fastpubsub.failures where topic_key = %s"
    if topic.service.one(query, topic.key) != (FAILED,):
        raise BenchmarkError("the failures that should be kept are not there")
    return subscription
