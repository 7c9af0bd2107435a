"""Pulling and settling on the bus in memory."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from fastpubsub import models
from fastpubsub.exceptions import InvalidRequest, TooLarge
from fastpubsub.json_text import is_object
from fastpubsub.message_ids import Target, parse_targets
from fastpubsub.payloads import parse_ids
from fastpubsub.testing.answers import delivery, listed
from fastpubsub.testing.calls import Answer, Call, Part, route
from fastpubsub.testing.store.cursor import Cursor
from fastpubsub.testing.store.settling import GONE, SETTLED, STALE

MAX_IDS = 1000
MAX_PULL_BYTES = 10_485_760

Settle = Callable[[Sequence[Target]], list[int]]
"""A call of a cursor: outcomes, or positions."""


class Consuming(Part):
    @route("GET", "/subscriptions/{id}/messages")
    def pull(self, call: Call) -> Answer:
        return 200, self._claim(self.store.cursor(*call.ids), call.batch_size, call.consumer_id)

    @route("POST", "/subscriptions/{id}/pulls")
    def settle_and_pull(self, call: Call) -> Answer:
        body = call.read(models.Settles)
        groups: list[models.Nack | models.Reject | models.Extend] = [*body.nacks, *body.rejects, *body.leases]
        bounded(body.acks + [id_ for one in groups for id_ in one.ids])
        cursor, limit = self.store.cursor(*call.ids), call.batch_size
        answer = {name: models.Settled(settled=[], gone=[], stale=[]) for name in models.Settles.model_fields}
        for name, ids, settle in self._settles(cursor, body):
            sort(ids, outcomes_of(cursor, ids, settle), answer[name])
        data = self._claim(cursor, limit, call.consumer_id)
        if not call.prefers_representation:
            return 200, data
        settled = b"".join(b',"%b":%b' % (k.encode(), v.model_dump_json().encode()) for k, v in answer.items())
        return 200, data[:-1] + settled + b"}"

    def _settles(self, cursor: Cursor, body: models.Settles) -> Iterator[tuple[str, list[str], Settle]]:
        """In the order of the server."""
        now = self.store.now
        yield "acks", body.acks, partial(cursor.ack, now=now)
        for nack in body.nacks:
            delays = [nack.delay_seconds] * len(nack.ids)
            if not nack.undelivered:
                yield "nacks", nack.ids, partial(cursor.nack, delays=delays, now=now, reason=nack.reason)
        for nack in body.nacks:
            if nack.undelivered:
                yield "nacks", nack.ids, partial(cursor.give_back, now=now)
        for reject in body.rejects:
            yield "rejects", reject.ids, partial(cursor.reject, reasons=[reject.reason] * len(reject.ids), now=now)
        for extend in body.leases:
            yield "leases", extend.ids, partial(cursor.extend, seconds=extend.extend_seconds, now=now)

    def _claim(self, cursor: Cursor, limit: int, consumer_id: str) -> bytes:
        claimed = cursor.claim(limit, self.store.now, consumer_id=consumer_id, max_bytes=MAX_PULL_BYTES)
        data = listed([delivery(cursor, one) for one in claimed])
        return data[:-1] + b',"paused":true}' if cursor.is_paused else data

    @route("POST", "/subscriptions/{id}/acks")
    def ack(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        return settled(call, cursor, parse_ids(call.body, max_ids=MAX_IDS), partial(cursor.ack, now=self.store.now))

    @route("POST", "/subscriptions/{id}/nacks")
    def nack(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        delay = call.number("delay_seconds", None, 0, models.MAX_DELAY_SECONDS)
        undelivered = call.flag("undelivered")
        if undelivered and delay is not None:
            raise InvalidRequest(models.UNDELIVERED_AND_DELAYED)
        reason = None
        if is_object(call.body):
            nack = call.read(models.Nack)
            ids, delay, undelivered, reason = bounded(nack.ids), nack.delay_seconds, nack.undelivered, nack.reason
        else:
            ids = parse_ids(call.body, max_ids=MAX_IDS)
        if undelivered:
            return settled(call, cursor, ids, lambda targets: cursor.give_back(targets, self.store.now))
        return settled(
            call, cursor, ids, lambda targets: cursor.nack(targets, [delay] * len(ids), self.store.now, reason)
        )

    @route("DELETE", "/subscriptions/{id}/waits")
    def end_waits(self, call: Call) -> Answer:
        self.store.cursor(*call.ids)
        self.left[f"/subscriptions/{call.ids[0]}", call.consumer_id] += 1
        return 204, None

    @route("POST", "/subscriptions/{id}/rejects")
    def reject(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        body = call.read(models.Reject)
        reasons = [body.reason] * len(body.ids)
        return settled(call, cursor, bounded(body.ids), lambda targets: cursor.reject(targets, reasons, self.store.now))

    @route("POST", "/subscriptions/{id}/leases")
    def extend(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        body = call.read(models.Extend)
        outcomes = outcomes_of(
            cursor, bounded(body.ids), lambda targets: cursor.extend(targets, body.extend_seconds, self.store.now)
        )
        kept = [id_ for id_, outcome in zip(body.ids, outcomes, strict=True) if outcome == SETTLED]
        return 200, models.Extended(ids=kept)


def bounded(ids: list[str]) -> list[str]:
    if len(ids) > MAX_IDS:
        raise TooLarge(f"the body has more ids than the {MAX_IDS} of one request; send several")
    return ids


def outcomes_of(cursor: Cursor, ids: list[str], settle: Settle) -> list[int]:
    targets = list(parse_targets(ids, cursor.log.key).singly())
    outcomes = [GONE] * len(ids)
    for one, outcome in zip(targets, settle(targets), strict=True):
        outcomes[one.place] = outcome
    return outcomes


def settled(call: Call, cursor: Cursor, ids: list[str], settle: Settle) -> Answer:
    outcomes = outcomes_of(cursor, ids, settle)
    if not call.prefers_representation:
        return 204, None
    answer = models.Settled(settled=[], gone=[], stale=[])
    sort(ids, outcomes, answer)
    return 200, answer


def sort(ids: list[str], outcomes: list[int], answer: models.Settled) -> None:
    for id_, outcome in zip(ids, outcomes, strict=True):
        {SETTLED: answer.settled, STALE: answer.stale}.get(outcome, answer.gone).append(id_)
