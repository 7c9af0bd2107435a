"""The outbox: publishing into it, and a relay as simple as it can be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.database.store import Row, Store


def publish(store: Store, payload: str, attributes: str | None = None, *, topic: str = "topic") -> None:
    store.execute("select fastpubsub.publish(%s, %s, %s)", topic, payload, attributes)


def waiting(store: Store) -> int:
    """Rows that are in the outbox."""
    return int(store.value("select count(*) from fastpubsub.outbox"))


class Listed(NamedTuple):
    held: bool
    seen: str
    topics: list[int]
    transactions: list[int]
    ordinals: list[int]
    more: bool


@dataclass
class Relay:
    store: Store
    limit: int = 1000
    max_bytes: int = 1 << 30
    seen: str | None = None

    def look(self, seen: str | None = None, after: tuple[int, int] = (0, 0), limit: int | None = None) -> Listed:
        query = "select * from fastpubsub.list_outbox(%s, %s, %s, %s, %s, 'tests')"
        limit = self.limit if limit is None else limit
        row = self.store.row(query, seen, *after, limit, self.max_bytes)
        return Listed(row[0], row[1], row[2] or [], row[3] or [], row[4] or [], row[5])

    def move(self, topic: int, transactions: Sequence[int], ordinals: Sequence[int]) -> Row:
        query = "select topic_id, moved, dropped from fastpubsub.relay_messages_2(%s, %s::bigint[], %s::bigint[])"
        return self.store.row(query, topic, list(transactions), list(ordinals))

    def everything(self) -> int:
        """Moves all that is there; how much that was."""
        self.seen = None
        return self.new()

    def new(self) -> int:
        """Moves what was committed since the last time."""
        seen, after, moved = self.seen, (0, 0), 0
        self.seen = None
        while True:
            listed = self.look(seen, after)
            self.seen = self.seen or listed.seen
            for topic in dict.fromkeys(listed.topics):
                rows = [index for index, key in enumerate(listed.topics) if key == topic]
                _, count, _ = self.move(
                    topic, [listed.transactions[i] for i in rows], [listed.ordinals[i] for i in rows]
                )
                moved += count
            if not listed.more:
                return moved
            after = (listed.transactions[-1], listed.ordinals[-1])
