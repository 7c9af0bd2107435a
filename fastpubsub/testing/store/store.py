"""All topics and subscriptions, and the time."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from fastpubsub.exceptions import AlreadyExists, BacklogFull, InvalidRequest, NotFound
from fastpubsub.models import ChangedSubscription, NewSubscription, Subscription, Topic
from fastpubsub.removable import REMOVABLE
from fastpubsub.testing.store.cursor import Cursor
from fastpubsub.testing.store.history import INTERVAL_SECONDS
from fastpubsub.testing.store.judging import Filter
from fastpubsub.testing.store.log import Log
from fastpubsub.testing.store.settings import (
    CHOSEN,
    DEFAULTS,
    check_backoff,
    check_order,
    or_default,
    refuse_push,
)


class Store:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.logs: dict[str, Log] = {}
        self.cursors: dict[str, Cursor] = {}
        self.past: dict[int, Counter[str]] = {}
        self.last_delayed = 0
        self.last_redrive = 0
        self._last_key = 0

    def advance(self, seconds: float, waited: Iterable[str] = ()) -> None:
        """Leases whose time is over end now. `waited`: the subscriptions of which somebody waits for messages."""
        self.now += timedelta(seconds=seconds)
        self.publish_due()
        for cursor in self.cursors.values():
            cursor.release(self.now)
        self.drop_backlogs()
        for id_ in self.cursors.keys() & set(waited):
            self.cursors[id_].use(self.now)
        self.cursors = {id_: cursor for id_, cursor in self.cursors.items() if not cursor.is_expired(self.now)}
        self.count()

    def publish_due(self) -> None:
        for log in self.logs.values():
            if log.delayed:
                log.publish_due(self.now)
            if log.schedules:
                log.fire_due(self.now)

    def drop_backlogs(self) -> None:
        for cursor in self.cursors.values():
            while cursor.drop_backlog(self.now)[2]:
                pass

    def fullest(self, log: Log) -> Cursor | None:
        """Of those that reject, the one with the least room."""
        limited = [one for one in self.cursors.values() if one.log is log and one.backlog_room is not None]
        return min(limited, key=lambda one: one.backlog_room or 0, default=None)

    def require_room(self, log: Log, count: int) -> None:
        """Raises unless so many messages may be published."""
        full = self.fullest(log)
        if full is None or full.backlog_room is None or full.backlog_room >= count or count == 0:
            return
        id_, most, room = full.subscription.id, full.subscription.max_backlog or 0, full.backlog_room
        if room > 0 and count > most:
            raise InvalidRequest(
                f'subscription "{id_}" can have {most} messages before it (max_backlog), and {count} were published at '
                "once: publish fewer"
            )
        raise BacklogFull(
            f'subscription "{id_}" is full: it has room for {max(room, 0)} of its max_backlog of {most} messages; '
            "try again when its consumers have come further"
        )

    def count(self) -> None:
        """Adds to the history what has happened since the last call."""
        at = int(self.now.timestamp()) // INTERVAL_SECONDS * INTERVAL_SECONDS
        counted: list[Log | Cursor] = [*self.logs.values(), *self.cursors.values()]
        for one in counted:
            if one.counts:
                for past in (one.past, self.past):
                    past.setdefault(at, Counter()).update(one.counts)
                one.counts.clear()

    def log(self, topic_id: str) -> Log:
        if topic_id not in self.logs:
            raise NotFound(f'topic "{topic_id}" does not exist')
        return self.logs[topic_id]

    def cursor(self, subscription_id: str) -> Cursor:
        if subscription_id not in self.cursors:
            raise NotFound(f'subscription "{subscription_id}" does not exist')
        return self.cursors[subscription_id]

    def create_topic(self, topic_id: str, retention_seconds: int | None) -> Topic:
        if topic_id in self.logs:
            raise AlreadyExists(f'topic "{topic_id}" already exists')
        self._last_key += 1
        topic = Topic(id=topic_id, created_at=self.now, retention_seconds=retention_seconds)
        self.logs[topic_id] = Log(self._last_key, topic)
        return topic

    def delete_topic(self, topic_id: str) -> None:
        log = self.log(topic_id)
        for cursor in self.cursors.values():
            if cursor.subscription.dead_letter_topic == topic_id:
                raise AlreadyExists(
                    f'topic "{topic_id}" gets the dead letters of subscription "{cursor.subscription.id}": '
                    "give that another dead_letter_topic first, or none"
                )
        del self.logs[topic_id]
        self.cursors = {id_: cursor for id_, cursor in self.cursors.items() if cursor.log is not log}

    def create_subscription(self, new: NewSubscription, wanted: Filter | None) -> Subscription:
        refuse_push(new.push)
        log = self.log(new.topic_id)
        if new.id in self.cursors:
            raise AlreadyExists(f'subscription "{new.id}" already exists')
        if new.fork_of is not None:
            return self._fork_subscription(new, new.fork_of, wanted)
        settings = {name: or_default(getattr(new, name), default) for name, default in DEFAULTS.items()}
        if new.backoff_max_seconds is None:
            settings["backoff_max_seconds"] = max(settings["backoff_max_seconds"], settings["backoff_min_seconds"])
        subscription = Subscription(
            id=new.id,
            topic_id=new.topic_id,
            filter=new.filter or None,
            created_at=self.now,
            ordered=new.ordered,
            **{name: getattr(new, name) or None for name in REMOVABLE},
            on_expired=new.on_expired or "drop",
            on_dead_letter=new.on_dead_letter or "continue",
            on_full=new.on_full or "reject",
            **settings,
        )
        check_backoff(subscription)
        check_order(subscription)
        self._check_dead_letter_topic(subscription)
        return self._begin(Cursor(log, subscription, log.before(new.start_from), self.logs, wanted))

    def _begin(self, cursor: Cursor) -> Subscription:
        cursor.use(self.now)
        self.cursors[cursor.subscription.id] = cursor
        return cursor.subscription

    def _fork_subscription(self, new: NewSubscription, fork_of: str, wanted: Filter | None) -> Subscription:
        original = self.cursor(fork_of)
        if original.subscription.topic_id != new.topic_id:
            raise InvalidRequest(f'fork_of: subscription "{fork_of}" is not of the topic "{new.topic_id}"')
        given = {name: getattr(new, name) for name in new.model_fields_set - {"fork_of", "push"}}
        chosen = {name: value for name, value in given.items() if value is not None}
        if "filter" in given:
            chosen["filter"] = new.filter or None
        chosen |= {name: chosen[name] or None for name in REMOVABLE if name in chosen}
        afresh = {"created_at": self.now, "is_paused": False, "paused_at": None}
        subscription = original.subscription.model_copy(update=afresh | chosen)
        self._check_dead_letter_topic(subscription)
        check_backoff(subscription)
        check_order(subscription)
        judge = wanted if "filter" in given else original.wanted
        return self._begin(Cursor(original.log, subscription, original.unsettled - 1, self.logs, judge))

    def update_subscription(
        self, subscription_id: str, changed: ChangedSubscription, wanted: Filter | None
    ) -> Subscription:
        refuse_push(changed.push)
        cursor = self.cursor(subscription_id)
        given = {name: getattr(changed, name) for name in DEFAULTS if getattr(changed, name) is not None}
        if "filter" in changed.model_fields_set:
            given["filter"] = changed.filter or None
        given |= {name: getattr(changed, name) or None for name in REMOVABLE if name in changed.model_fields_set}
        given |= {name: getattr(changed, name) for name in CHOSEN if getattr(changed, name) is not None}
        subscription = cursor.subscription.model_copy(update=given)
        check_backoff(subscription)
        check_order(subscription)
        if "dead_letter_topic" in given:
            self._check_dead_letter_topic(subscription)
        cursor.subscription = subscription
        if "filter" in given:
            cursor.wanted = wanted
        if "expire_after_seconds" in given:
            cursor.use(self.now)
        return cursor.subscription

    def _check_dead_letter_topic(self, subscription: Subscription) -> None:
        topic_id = subscription.dead_letter_topic
        if topic_id is None:
            return
        if topic_id == subscription.topic_id:
            raise InvalidRequest(
                "dead_letter_topic is the topic of the subscription, which would get its dead letters itself: "
                "name another one"
            )
        if topic_id not in self.logs:
            raise NotFound(f'dead_letter_topic: topic "{topic_id}" does not exist')
        if self.logs[topic_id].schema is not None:
            raise InvalidRequest(
                f'dead_letter_topic: topic "{topic_id}" has a JSON Schema, and dead letters may not match it: '
                "name a topic without one"
            )

    def delete_subscription(self, subscription_id: str) -> None:
        self.cursor(subscription_id)
        del self.cursors[subscription_id]
