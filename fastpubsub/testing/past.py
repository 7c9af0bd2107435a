"""What happened to the bus in memory: its history, and who changed what."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from fastpubsub import models
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.testing.calls import Answer, Call, Part, Route, route

MAX_TIME = 2**40
MAX_BODY_BYTES = 4096
"""Of a body that is recorded as it came; of a longer one its size is."""

LASTS = {"5": 3600, "60": 86_400}
"""For how many seconds intervals of that many seconds are told."""


class Past(Part):
    @route("GET", "/topics/{id}/history")
    def topic_history(self, call: Call) -> Answer:
        return 200, models.TopicHistory(**self._read(call, self.store.log(*call.ids).past, ["published"]))

    @route("GET", "/subscriptions/{id}/history")
    def subscription_history(self, call: Call) -> Answer:
        names = models.SubscriptionRates.model_fields
        return 200, models.SubscriptionHistory(**self._read(call, self.store.cursor(*call.ids).past, names))

    @route("GET", "/overview/history")
    def overview_history(self, call: Call) -> Answer:
        return 200, models.OverviewHistory(**self._read(call, self.store.past, models.Rates.model_fields))

    def _read(self, call: Call, past: dict[int, Counter[str]], names: Iterable[str]) -> dict[str, Any]:
        """The intervals that are over."""
        given = call.query.get("interval_seconds", "5")
        if given not in LASTS:
            raise InvalidRequest("query.interval_seconds: Input should be '5' or '60'")
        interval, now = int(given), int(self.store.now.timestamp())
        end = now // interval * interval
        start = max(call.number("from", 0, 0, MAX_TIME) // interval * interval, end - LASTS[given])
        times = list(range(start, min(end, call.number("to", end, 0, MAX_TIME)), interval))
        sums: dict[int, Counter[str]] = {}
        for at, counts in past.items():
            sums.setdefault(at // interval * interval, Counter()).update(counts)
        columns = {name: [sums.get(at, Counter())[name] for at in times] for name in names}
        return {"interval_seconds": interval, "times": times, **columns}

    def record(self, call: Call, one: Route, body: Any) -> None:
        """Of a creation, `body` is what was created."""
        kind = "topic" if one.path.pattern.startswith("/topics") else "subscription"
        size = len(call.body)
        details = {"body_bytes": size} if size > MAX_BODY_BYTES else json.loads(call.body or b"null")
        change = models.RecordedChange(
            at=self.store.now,
            client_id="anonymous",
            request_id=call.headers.get("x-request-id", "in-memory"),
            action=one.action or "",
            object=kind,
            object_id=call.ids[0] if call.ids else body.id,
            details=details,
        )
        self.changes.append(change)

    @route("GET", "/audit")
    def list_changes(self, call: Call) -> Answer:
        """Newest first; the token of a page is the number of the change before which it begins."""
        after, before = call.time("after"), call.time("before")
        token = call.query.get("page_token", str(len(self.changes)))
        if not token.isascii() or not token.isdecimal() or len(token) > 18:
            raise InvalidRequest("page_token is not one that an answer had; leave it out to begin with the first page")
        wanted = {name: call.query[name] for name in ("object", "object_id", "client_id") if name in call.query}
        found = [
            number
            for number, change in list(enumerate(self.changes))[: int(token)][::-1]
            if all(getattr(change, name) == value for name, value in wanted.items())
            and (after is None or change.at >= after)
            and (before is None or change.at < before)
        ]
        limit = call.number("limit", 10, 1, 100)
        more = str(found[limit - 1]) if len(found) > limit else None
        return 200, models.ChangeList(data=[self.changes[number] for number in found[:limit]], next_page_token=more)
