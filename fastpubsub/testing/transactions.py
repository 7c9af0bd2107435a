"""Settling and publishing together, on the bus in memory."""

from collections.abc import Callable, Sequence
from functools import partial

from pydantic import TypeAdapter

from fastpubsub.exceptions import InvalidRequest, NoLongerHeld
from fastpubsub.message_ids import Target, parse_targets
from fastpubsub.models import TransactionSettles
from fastpubsub.payloads import Batch, parse_batch, parse_transaction
from fastpubsub.testing.calls import Answer, Call, Part, route
from fastpubsub.testing.delayed import publish
from fastpubsub.testing.store.cursor import Cursor
from fastpubsub.testing.store.log import Log
from fastpubsub.testing.topics import MAX_DEPTH, MAX_MESSAGES

SETTLES = TypeAdapter(list[TransactionSettles])

Step = tuple[Cursor, list[str], Callable[[Sequence[Target]], list[int]]]


class Transactions(Part):
    @route("POST", "/transactions")
    def run_transaction(self, call: Call) -> Answer:
        body = parse_transaction(call.body)
        steps = [step for one in SETTLES.validate_json(bytes(body.settles)) for step in self._steps(one)]
        if not steps or not all(ids for _, ids, _ in steps):
            raise InvalidRequest("a transaction settles at least one delivery; without any, publish to the topics")
        batches = [(self.store.log(one.topic_id), _batch(bytes(one.messages))) for one in body.publishes]
        for log, batch in batches:
            _check(log, batch)
        targets = [held(cursor, ids) for cursor, ids, _ in steps]
        for (_, _, settle), found in zip(steps, targets, strict=True):
            settle(found)
        for log, batch in batches:
            publish(self.store, log, batch)
        return 204, None

    def _steps(self, settles: TransactionSettles) -> list[Step]:
        cursor, now = self.store.cursor(settles.subscription_id), self.store.now
        steps: list[Step] = [(cursor, settles.acks, partial(cursor.ack, now=self.store.now))] if settles.acks else []
        for nack in settles.nacks:
            delays = [nack.delay_seconds] * len(nack.ids)
            steps.append((cursor, nack.ids, partial(cursor.nack, delays=delays, now=now, reason=nack.reason)))
        for reject in settles.rejects:
            reasons = [reject.reason] * len(reject.ids)
            steps.append((cursor, reject.ids, partial(cursor.reject, reasons=reasons, now=now)))
        return steps


def held(cursor: Cursor, ids: list[str]) -> list[Target]:
    """All of them, or it is refused."""
    if len(set(ids)) < len(ids):
        raise InvalidRequest("the array has an ack id twice")
    targets = list(parse_targets(ids, cursor.log.key).singly())
    if any(one.token is None for one in targets):
        raise InvalidRequest("a text of the array is no ack id")
    missing = len(ids) - sum(map(cursor.holds, targets))
    if missing:
        name = cursor.subscription.id
        raise NoLongerHeld(f'{missing} of {len(ids)} deliveries of subscription "{name}" are not held any more')
    return targets


def _check(log: Log, batch: Batch) -> None:
    try:
        if log.schema is not None:
            log.schema.check(batch.payloads)
    except InvalidRequest as error:
        raise InvalidRequest(f'topic "{log.topic.id}": {error.detail}') from None


def _batch(messages: bytes) -> Batch:
    return parse_batch(b'{"messages":%b}' % messages, max_messages=MAX_MESSAGES, max_depth=MAX_DEPTH)
