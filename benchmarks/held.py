"""Throughput while another session holds a snapshot, so that nothing deleted goes away; and memory meanwhile."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import raw
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.load import Load, Wrk
from benchmarks.meter import Memory
from benchmarks.pairs import Spread, ratio
from benchmarks.payloads import batch
from benchmarks.plan import Plan
from benchmarks.results import Measure
from benchmarks.service import Service, Subscription

BATCH = 100
ACK_DEADLINE_SECONDS = 5
BACKOFF_SECONDS = 1
PREFILL = 5_000
MEMORY_SAMPLES = 5

_DEAD_LEASES = "select n_dead_tup from pg_stat_user_tables where relid = 'fastpubsub.leases'::regclass"
_HOT_TABLES = "fastpubsub.leases, fastpubsub.retries, fastpubsub.claims, fastpubsub.messages"


def held_snapshot(bench: Bench) -> list[Measure]:
    """Cycles of publish, pull and settle; the memory of the worker that serves them all."""
    plan = bench.plan
    pairs: list[_Pair] = []
    with bench.service() as service:
        settings = {"ack_deadline_seconds": ACK_DEADLINE_SECONDS, "backoff_min_seconds": BACKOFF_SECONDS}
        subscription = service.create_topic().subscribe(**settings)
        with Memory(service.server.worker) as memory:
            for _ in range(plan.held_pairs):
                subscription.ensure_ahead(PREFILL)
                pairs.append(_run(service, subscription, plan))
                # What one pair has left behind must not make the next one's start look slow.
                service.connection.execute(f"vacuum {_HOT_TABLES}")
        bench.check_totals("cycles under a held snapshot", subscription)
        trimmed = subscription.topic.trimmed
    _note(bench, pairs, trimmed)
    bench.results.series |= {
        "cycles/s, held from 0 s": pairs[0].series(),
        "memory, MB": [(seconds, rss / 1e6) for seconds, rss in memory.samples],
    }
    before, after = Spread([pair.before for pair in pairs]), Spread([pair.after for pair in pairs])
    figures = f"{after.median:,.0f} ÷ {before.median:,.0f} cycles per s"
    name = f"cycles {plan.held_seconds} s into a held snapshot ÷ before"
    return [Measure(name, 0.9, 1.0, ratio(after, before), figures), _memory(memory, plan)]


@contextmanager
def hold_snapshot(service: Service) -> Iterator[None]:
    """`begin; select 1` would hold none: the isolation level keeps it, and looking at a table takes it."""
    with service.cluster.connect(service.database_url) as holder, service.cluster.connect() as observer:
        holder.execute("begin isolation level repeatable read")
        holder.execute("select txid_current_if_assigned(), count(*) from pg_class")
        query = "select backend_xmin is not null from pg_stat_activity where pid = %s"
        row = observer.execute(query, [holder.info.backend_pid]).fetchone()
        if row != (True,):
            raise BenchmarkError("the other session holds no snapshot, so there is nothing to measure")
        yield
        holder.execute("rollback")


@dataclass(frozen=True)
class _Pair:
    load: Load
    held_at: int
    """The second of the clock from which the snapshot was held."""
    plan: Plan
    dead: int
    """Rows of `leases` at the end, which nobody could remove."""

    @property
    def before(self) -> float:
        return self._cycles(self.held_at - self.plan.held_before_seconds)

    @property
    def after(self) -> float:
        return self._cycles(self.held_at + self.plan.held_seconds)

    def series(self) -> list[tuple[float, float]]:
        whole = sorted(self.load.per_second)[1:-1]
        return [(second - self.held_at, self.load.per_second[second] / BATCH) for second in whole]

    def _cycles(self, start: int) -> float:
        seconds = range(start, start + self.plan.held_before_seconds)
        return statistics.fmean(self.load.per_second.get(second, 0) for second in seconds) / BATCH


def _run(service: Service, subscription: Subscription, plan: Plan) -> _Pair:
    window = plan.held_before_seconds
    wrk = _start(service, subscription, plan.held_warm_up_seconds + 2 * window + plan.held_seconds + 2)
    try:
        held_at = _sleep_to_second(plan.held_warm_up_seconds + window)
        with hold_snapshot(service):
            _sleep_to_second(plan.held_seconds + window)
            (dead,) = service.one(_DEAD_LEASES)
            load = wrk.finish()
    finally:
        wrk.stop()
    return _Pair(load, held_at, plan, int(dead))


def _start(service: Service, subscription: Subscription, seconds: float) -> Wrk:
    requests = service.save(raw.publish(subscription.topic.id, batch(BATCH)), raw.pull(subscription.id, BATCH))
    path = f"/subscriptions/{subscription.id}"
    arguments = (requests, f"{path}/acks", f"{path}/nacks?delay_seconds=0", BATCH, PREFILL)
    return Wrk(service.server.address, "cycle.lua", seconds, *arguments)


def _sleep_to_second(seconds: float) -> int:
    """Sleeps at least so long, to the start of a second of the clock, which is when wrk starts to count anew."""
    end = int(time.time() + seconds) + 1
    time.sleep(max(0.0, end - time.time()))
    return end


def _note(bench: Bench, pairs: list[_Pair], trimmed: int) -> None:
    counts: Counter[str] = Counter()
    for pair in pairs:
        counts.update(pair.load.counts)
    shares = {name: counts[name] / max(counts["pulled"], 1) for name in ("acked", "nacked", "dropped")}
    dead = statistics.median(pair.dead for pair in pairs)
    bench.results.notes.append(
        f"held snapshot: of {counts['pulled']:,} messages pulled {shares['acked']:.1%} were acked, "
        f"{shares['nacked']:.1%} nacked, {shares['dropped']:.1%} left to expire; {counts['empty']} pulls were empty; "
        f"{trimmed:,} messages were trimmed meanwhile; at the end of a hold leases had {dead:,.0f} dead rows"
    )


def _memory(memory: Memory, plan: Plan) -> Measure:
    """Five samples a second apart at each of the two times."""
    name = "memory of the worker, end ÷ first minute"
    first = [rss for seconds, rss in memory.samples if seconds >= plan.minute_seconds][:MEMORY_SAMPLES]
    last = [rss for _, rss in memory.samples][-len(first) :]
    if not first:
        return Measure(name, 1.05, 1.0, None, "the load was too short", smaller_is_better=True)
    end_seconds = memory.samples[-1][0]
    figures = (
        f"{statistics.median(last) / 1e6:.1f} MB after {end_seconds:.0f} s ÷ "
        f"{statistics.median(first) / 1e6:.1f} MB after {plan.minute_seconds} s"
    )
    return Measure(name, 1.05, 1.0, ratio(Spread(last), Spread(first)), figures, smaller_is_better=True)
