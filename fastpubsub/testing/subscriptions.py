"""Subscriptions of the bus in memory."""

from datetime import datetime
from uuid import UUID

from fastpubsub import message_ids, models
from fastpubsub.client.decimals import loads_exactly
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.json_text import member
from fastpubsub.testing.calls import Answer, Call, Part, route
from fastpubsub.testing.store.cursor import Cursor
from fastpubsub.testing.store.judging import Filter, matches, passes, read_filter
from fastpubsub.testing.store.log import Log

DEFAULT_LAST = 100
EXAMPLES = 5


class Subscriptions(Part):
    @route("POST", "/subscriptions", "create_subscription")
    def create_subscription(self, call: Call) -> Answer:
        new = call.read(models.NewSubscription)
        return 201, self.store.create_subscription(new, given_filter(call.body))

    @route("GET", "/subscriptions")
    def list_subscriptions(self, call: Call) -> Answer:
        found = [cursor for id_, cursor in sorted(self.store.cursors.items()) if call.part in id_.lower()]
        if topic_id := call.query.get("topic_id"):
            found = [cursor for cursor in found if cursor.subscription.topic_id == topic_id]
        if call.flag("has_dead_letters"):
            found = [cursor for cursor in found if cursor.dead]
        return 200, models.SubscriptionList(data=[self._subscription(call, cursor) for cursor in call.page(found)])

    @route("GET", "/subscriptions/{id}")
    def get_subscription(self, call: Call) -> Answer:
        return 200, self._subscription(call, self.store.cursor(*call.ids))

    def _subscription(self, call: Call, cursor: Cursor) -> models.Subscription:
        if not call.includes_metrics:
            return cursor.subscription
        return cursor.subscription.model_copy(update={"metrics": cursor.figures(self.store.now)})

    @route("PATCH", "/subscriptions/{id}", "update_subscription")
    def update_subscription(self, call: Call) -> Answer:
        changed = call.read(models.ChangedSubscription)
        return 200, self.store.update_subscription(call.ids[0], changed, given_filter(call.body))

    @route("DELETE", "/subscriptions/{id}", "delete_subscription")
    def delete_subscription(self, call: Call) -> Answer:
        self.store.delete_subscription(*call.ids)
        return 204, None

    @route("GET", "/subscriptions/{id}/metrics")
    def metrics(self, call: Call) -> Answer:
        return 200, self.store.cursor(*call.ids).metrics()

    @route("POST", "/subscriptions/{id}/pause", "pause_subscription")
    def pause(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        cursor.pause(self.store.now)
        cursor.use(self.store.now)
        return 200, cursor.subscription

    @route("POST", "/subscriptions/{id}/resume", "resume_subscription")
    def resume(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        cursor.pause(None)
        cursor.use(self.store.now)
        return 200, cursor.subscription

    @route("POST", "/subscriptions/{id}/purge", "purge_subscription")
    def purge(self, call: Call) -> Answer:
        return 200, models.PurgedSubscription(purged=self.store.cursor(*call.ids).settle_all(), is_estimated=False)

    @route("POST", "/subscriptions/{id}/seek", "seek_subscription")
    def seek(self, call: Call) -> Answer:
        body = call.read(models.Seek)
        to: str | datetime | UUID | int = body.to
        cursor = self.store.cursor(*call.ids)
        if isinstance(to, UUID):
            message = message_ids.parse(str(to))
            if message is None or message.topic_key != cursor.log.key:
                raise InvalidRequest(f'{to} is not a message of the topic of subscription "{call.ids[0]}"')
            to = message.position
        if body.dry_run:
            return 200, _seek_preview(cursor, to)
        cursor.seek(to, self.store.now)
        return 204, None

    @route("POST", "/topics/{id}/filter/test")
    def test_filter_of_topic(self, call: Call) -> Answer:
        return 200, _filter_tested(self.store.log(*call.ids), None, call)

    @route("POST", "/subscriptions/{id}/filter/test")
    def test_filter_of_subscription(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        return 200, _filter_tested(cursor.log, cursor, call)


def _seek_preview(cursor: Cursor, to: str | datetime | int) -> models.SeekPreview:
    """Without the times, which are for people."""
    return models.SeekPreview(
        ahead_now=len(cursor.ahead()),
        ahead_after=len(cursor.log.matching(cursor.log.before(to), cursor.wanted)),
        is_estimated=False,
        ends_leased=len(cursor.leases),
        ends_waiting=len(cursor.all_waiting),
    )


def _filter_tested(log: Log, cursor: Cursor | None, call: Call) -> models.FilterTested:
    """Without the reasons, whose words are the server's."""
    asked, wanted = call.read(models.FilterTest), given_filter(call.body)
    if asked.payload is not None:
        payload, attributes = member(call.body, "payload") or b"null", member(call.body, "attributes")
        return models.FilterTested(passes=matches(wanted, payload, attributes, asked.ordering_key))
    last = sorted(log.messages)[-(asked.last or DEFAULT_LAST) :][::-1]
    passing = [one for one in last if passes(wanted, log.messages[one])]
    filtered = [position for position in last if position not in passing]
    tested = models.FilterTested(looked_at=len(last), passed=len(passing))
    tested.passing, tested.filtered = (
        [
            models.FilteredExample(
                id=UUID(log.id_of(position, log.messages[position])),
                payload=loads_exactly(log.messages[position].payload),
            )
            for position in positions[:EXAMPLES]
        ]
        for positions in (passing, filtered)
    )
    if cursor is not None:
        tested.ahead_now, tested.is_estimated = len(cursor.ahead()), False
        tested.ahead_after = len(log.matching(cursor.position, wanted))
    return tested


def given_filter(body: bytes) -> Filter | None:
    return read_filter(member(body, "filter"))
