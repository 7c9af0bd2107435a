"""Messages of the bus in memory that come later."""

from datetime import datetime, timedelta

from fastpubsub import models
from fastpubsub.client.decimals import loads_exactly
from fastpubsub.delayed_ids import delayed_id, parse
from fastpubsub.exceptions import AlreadyExists, InvalidRequest, NotFound
from fastpubsub.payloads import Batch, Delay
from fastpubsub.testing.calls import Answer, Call, Part, route
from fastpubsub.testing.store.log import NEVER, Log
from fastpubsub.testing.store.records import Delayed, Stored
from fastpubsub.testing.store.store import Store

MOST = timedelta(days=366)


def publish(store: Store, log: Log, batch: Batch) -> list[str]:
    """Puts aside what comes later; the ids are in the order of the batch."""
    count = len(batch.payloads)
    attributes = batch.attributes or [None] * count
    ordering_keys = batch.ordering_keys or [None] * count
    if batch.delays is None:
        return log.publish(batch.payloads, attributes, store.now, ordering_keys, batch.expiries)
    due = [due_time(delay, store.now) for delay in batch.delays]
    expiries = batch.expiries or [NEVER] * count
    ids = []
    for payload, one, key, due_at, expiry in zip(batch.payloads, attributes, ordering_keys, due, expiries, strict=True):
        if due_at is None:
            ids += log.publish([payload], [one], store.now, [key], [expiry])
        else:
            store.last_delayed += 1
            log.delay(store.last_delayed, due_at, Stored(payload, one, store.now, key, *expiry), store.now)
            ids.append(delayed_id(store.last_delayed))
    return ids


def due_time(delay: Delay, now: datetime) -> datetime | None:
    if delay.deliver_at is not None and delay.deliver_at > now + MOST:
        raise InvalidRequest(
            "a message cannot be delayed for more than a year; publish it later, or use an earlier `deliver_at`"
        )
    return delay.deliver_at if delay.seconds is None else now + timedelta(seconds=delay.seconds)


class DelayedMessages(Part):
    @route("GET", "/topics/{id}/delayed")
    def list_delayed(self, call: Call) -> Answer:
        """Nothing is ever held: time passes only here."""
        log = self.store.log(*call.ids)
        found = [] if call.query.get("state") == "held" else sorted(log.delayed.values())[call.after :]
        shown = found[: call.number("limit", 10, 1, 100)]
        end = None if len(shown) == len(found) else call.token(call.after + len(shown))
        data = [_waiting(log, one) for one in shown]
        return 200, models.DelayedMessageList(data=data, next_page_token=end)

    @route("GET", "/topics/{id}/delayed/{id}")
    def get_delayed(self, call: Call) -> Answer:
        log, key = self._named(call)
        if key in log.delayed:
            return 200, _waiting(log, log.delayed[key])
        if key not in log.fired:
            raise _unknown(call)
        due_at, position = log.fired[key]
        message = log.messages[position]
        return 200, models.DelayedMessage(
            id=delayed_id(key),
            topic_id=log.topic.id,
            state="published",
            deliver_at=due_at,
            created_at=message.created_at,
            message_id=log.id_of(position, message),
        )

    @route("PATCH", "/topics/{id}/delayed/{id}")
    def move_delayed(self, call: Call) -> Answer:
        log, key = self._pending(call)
        new = call.read(models.DelayedTime)
        due_at = due_time(Delay(new.deliver_at, new.delay_seconds), self.store.now)
        return 200, _waiting(log, log.move(key, due_at or self.store.now))

    @route("DELETE", "/topics/{id}/delayed/{id}")
    def cancel_delayed(self, call: Call) -> Answer:
        log, key = self._pending(call)
        del log.delayed[key]
        return 204, None

    @route("POST", "/topics/{id}/release", "release_delayed_messages")
    def release_delayed(self, call: Call) -> Answer:
        self.store.log(*call.ids)
        return 200, models.Released(released=0)

    def _named(self, call: Call) -> tuple[Log, int]:
        topic_id, id_ = call.ids
        return self.store.log(topic_id), parse(id_)

    def _pending(self, call: Call) -> tuple[Log, int]:
        log, key = self._named(call)
        if key in log.fired:
            raise AlreadyExists(
                f'the delayed message "{call.ids[1]}" is published already; its `message_id` says as what'
            )
        if key not in log.delayed:
            raise _unknown(call)
        return log, key


def _waiting(log: Log, one: Delayed) -> models.DelayedMessage:
    return models.DelayedMessage(
        id=delayed_id(one.key),
        topic_id=log.topic.id,
        state="waiting",
        deliver_at=one.due_at,
        created_at=one.message.created_at,
        payload=loads_exactly(one.message.payload),
        attributes=None if one.message.attributes is None else loads_exactly(one.message.attributes),
        ordering_key=one.message.ordering_key,
        ttl_seconds=one.message.ttl_seconds,
        expires_at=one.message.expires_at,
    )


def _unknown(call: Call) -> NotFound:
    topic_id, id_ = call.ids
    return NotFound(
        f'topic "{topic_id}" has no delayed message "{id_}"; it was cancelled, or published more than a day ago'
    )
