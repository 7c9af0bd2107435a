"""What `make bench-peers` counts. It needs no broker: the client here keeps its queues in this process."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import pytest

from benchmarks import readme
from benchmarks.errors import BenchmarkError
from benchmarks.pairs import Spread
from benchmarks.payloads import FIRST
from benchmarks.peers import load, programs, registry
from benchmarks.peers.load import Load, Target
from benchmarks.peers.peer import Handler, Payload
from benchmarks.peers.table import Cell, Table, half_load, percentile


class Memory:
    """A client as those of the peers are; `loses` and `keeps` make it one that does not do its work."""

    queues: ClassVar[dict[str, list[Payload]]] = {}
    loses = False
    keeps = False

    def __init__(self, queue: str) -> None:
        self._queue = self.queues.setdefault(queue, [])
        self._unsettled = len(self._queue)

    @classmethod
    async def open(cls, url: str, queue: str) -> Self:
        assert url == "memory"
        return cls(queue)

    async def close(self) -> None:
        pass

    async def publish(self, payload: Payload) -> None:
        await asyncio.sleep(0)
        self._queue.append(payload)

    async def publish_batch(self, payloads: Sequence[Payload]) -> None:
        await asyncio.sleep(0)
        self._queue.extend(payloads)

    async def handle(self, concurrency: int, handler: Handler) -> None:
        while True:
            batch, self._queue[:] = self._queue[:concurrency], self._queue[concurrency:]
            await asyncio.gather(*map(handler, batch[self.loses :]))
            await asyncio.sleep(0.001)

    async def unsettled(self) -> int:
        return len(self._queue) + self.keeps

    async def drop(self) -> None:
        self._queue.clear()


class Losing(Memory):
    loses = True


class Keeping(Memory):
    keeps = True


def target(queue: str, client: type[Memory] = Memory) -> Target:
    return Target(client, "memory", queue, size=200)


@pytest.mark.parametrize("count", [1, 250])
async def test_a_round_publishes_and_handles_every_message(count: int) -> None:
    queue = target(f"round of {count}")
    assert await load.fill(queue, count) == count
    assert sorted(message["n"] - FIRST for message in Memory.queues[queue.queue]) == list(range(count))
    if count > 1:
        handled = await load.handle(queue, count, concurrency=10)
        assert handled.messages == count
        assert handled.rate > 0
    await load.drop(queue)
    assert Memory.queues[queue.queue] == []


async def test_closed_loops_count_what_they_publish() -> None:
    queue = target("closed loops")
    singly = await load.publish(queue, 16, 0.05)
    before = len(Memory.queues[queue.queue])
    assert before == singly.messages + 16, "the first of each loop are not counted"
    batches = await load.publish_batches(queue, 2, 0.05)
    assert len(Memory.queues[queue.queue]) - before == batches.messages + 2 * load.BATCH
    assert Load(100, 0.5, 0.1).rate == 200


async def test_messages_are_published_when_they_are_due_and_arrive() -> None:
    queue = target("paced")
    arriving = asyncio.create_task(load.arrive(queue, 20, concurrency=10))
    due = await load.pace(queue, rate=500, count=20)
    arrived = await arriving
    assert arrived[20] < due[0], "the consumer works before the first message is due"
    assert due[19] - due[0] == pytest.approx(19 / 500)
    assert all(arrived[number] >= due[number] for number in range(20))


@pytest.mark.parametrize(
    ("client", "complaint"), [(Losing, "messages did not arrive"), (Keeping, "1 messages were handled and are not")]
)
async def test_a_round_that_loses_or_does_not_acknowledge_has_no_figure(
    client: type[Memory], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "SILENCE_SECONDS", 2.0)
    queue = target(f"queue of {client.__name__}", client)
    await load.fill(queue, 30)
    with pytest.raises(BenchmarkError, match=complaint):
        await load.handle(queue, 30, concurrency=10)


def test_the_table_has_the_worse_quartile_and_marks_the_best() -> None:
    table = Table(["ours", "theirs"])
    table.add("rate", {"ours": Cell(Spread([1000.0, 1100.0, 1200.0])), "theirs": Cell(Spread([2000.0]))})
    table.add(
        "time", {"ours": Cell(Spread([1.0, 2.0, 3.0]), smaller_is_better=True), "theirs": Cell(Spread([7.0]), True)}
    )
    table.add("memory", {"ours": Cell(Spread([80.0]), True, " at 5")})
    assert str(table).splitlines() == [
        "|  | ours | theirs |",
        "| --- | --- | --- |",
        "| rate | 1,100 (1,050) | **2,000** |",
        "| time | **2 (2.5)** | 7 |",
        "| memory | 80 at 5 | - |",
    ]


def test_percentiles_and_half_of_a_load() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([3.0], 0.99)) == (51.0, 100.0, 3.0)
    assert half_load(1000, 1000) == 250


def test_a_peer_that_cannot_run_says_what_it_needs() -> None:
    found, missing = registry.find(list(registry.MODULES))
    assert {"fastpubsub", "publisher"} <= found.keys()
    assert found.keys() | missing.keys() == registry.MODULES.keys()
    assert all("is not installed: make bench-peers installs it" in sentence for sentence in missing.values())
    with pytest.raises(BenchmarkError, match=r"no-such-broker is not installed: .* apt-get install its-package"):
        programs.find("no-such-broker", "its-package")


def test_the_result_goes_into_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "README.md"
    page.write_text(readme.README.read_text())
    monkeypatch.setattr(readme, "README", page)
    before = page.read_text().partition(readme.PEERS_BEGIN)
    readme.write_peers("the table\n")
    assert page.read_text().startswith(before[0] + before[1] + "\n\nthe table\n\n" + readme.PEERS_END)
    assert page.read_text().endswith(before[2].partition(readme.PEERS_END)[2])
