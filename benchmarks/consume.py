"""Pulling and acking what is there."""

from collections.abc import Callable
from pathlib import Path

from benchmarks import raw
from benchmarks.errors import BenchmarkError
from benchmarks.load import CONNECTIONS, Load, Wrk, finish
from benchmarks.payloads import SMALL
from benchmarks.service import Subscription

_ATTEMPTS = 5
_RESERVE = 1.5


class Consumer:
    """In batches of one size; what it may need is published before, from within the database.

    `at_once`: acks and the next pull are one request.
    """

    def __init__(
        self,
        subscription: Subscription,
        batch_size: int,
        size: int = SMALL,
        *,
        at_once: bool = False,
        ttl_seconds: int = 0,
    ) -> None:
        service = subscription.topic.service
        self._subscription = subscription
        self._address = service.server.address
        self._batch_size = batch_size
        self._size = size
        self._at_once = at_once
        self._ttl_seconds = ttl_seconds
        self._pull = service.save(raw.pull(subscription.id, batch_size))
        self._rate = 2000.0 * batch_size**0.5
        """Messages per second that were seen so far, a guess at first."""

    def start(self, seconds: float, *, limit: int = 0, log: Path | None = None) -> Wrk:
        folder = f"/subscriptions/{self._subscription.id}"
        path, answer = f"{folder}/acks", ""
        if self._at_once:
            path, answer = f"{folder}/pulls?consumer_id=benchmark&batch_size={self._batch_size}", "pulls"
        arguments = (self._pull, path, self._batch_size, limit, log or "", answer)
        return Wrk(self._address, "consume.lua", seconds, *arguments)

    def drain(self, messages: int, seconds: float) -> None:
        """Acks so many messages, in at most this time."""
        acked = finish(self.start(seconds, limit=messages)).counts["acked"]
        if acked < messages:
            raise BenchmarkError(f"only {acked} of {messages} messages could be acked in {seconds} s")

    def prepare(self, seconds: float) -> None:
        reserve = 2 * CONNECTIONS * self._batch_size
        self._subscription.ensure_ahead(round(self._rate * seconds * _RESERVE) + reserve, self._size, self._ttl_seconds)

    def run(self, seconds: float) -> Load:
        """Never meets an empty subscription: then it is repeated with more messages."""
        return self.repeat(seconds, lambda: self.start(seconds))

    def repeat(self, seconds: float, start: Callable[[], Wrk]) -> Load:
        for _ in range(_ATTEMPTS):
            self.prepare(seconds)
            done = finish(start())
            self._rate = max(self._rate, done.counts["pulled"] / done.seconds)
            if not done.counts["empty"]:
                return done
            self._rate *= 2
        raise BenchmarkError("the subscription ran empty again and again, so its consumer could not be measured")

    def acked_per_second(self, seconds: float) -> float:
        done = self.run(seconds)
        return done.counts["acked"] / done.seconds
