"""The HTTP API over the store in memory: the routes that clients and workers use."""

import base64
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from fastpubsub import __version__, message_ids, models
from fastpubsub.client.decimals import loads_exactly, write_exactly
from fastpubsub.exceptions import FastpubsubError, InvalidRequest, NotFound, TooLarge
from fastpubsub.message_ids import Target, parse_targets
from fastpubsub.payload_schemas import PayloadSchema
from fastpubsub.payloads import check_json, member, parse_batch, parse_ids
from fastpubsub.searches import Place, parse_due, parse_place, parse_search
from fastpubsub.testing.store import (
    GONE,
    SETTLED,
    STALE,
    Claimed,
    Cursor,
    Dead,
    Filter,
    Log,
    Store,
    Stored,
    is_found,
    matches,
    read_filter,
)

Model = TypeVar("Model", bound=BaseModel)

MAX_MESSAGES = MAX_IDS = 1000
MAX_DEPTH = 64
MAX_REASONS = 100
DEFAULT_LAST = 100
EXAMPLES = 5
MAX_KEY_CHARACTERS = 255
MAX_PULL_BYTES = 10_485_760


class Call(NamedTuple):
    ids: list[str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def prefers_representation(self) -> bool:
        return self.headers.get("prefer", "") == "return=representation"

    def read(self, model: type[Model]) -> Model:
        check_json(self.body)
        read, exact = model.model_validate_json(self.body), loads_exactly(self.body)
        for name, member_ in (("filter", "filter"), ("schema", "payload_schema")):
            if member_ in read.model_fields_set:
                setattr(read, member_, exact[name])
        return read

    def number(self, name: str, default: int | None, low: int, high: int) -> Any:
        value = self.query.get(name)
        if value is None:
            return default
        if not value.isdecimal() or not low <= int(value) <= high:
            raise InvalidRequest(f"query.{name}: Input should be a whole number from {low} to {high}")
        return int(value)

    def flag(self, name: str) -> bool:
        value = self.query.get(name)
        if value not in (None, "true", "false"):
            raise InvalidRequest(f"query.{name}: Input should be true or false")
        return value == "true"

    @property
    def consumer_id(self) -> str:
        value = self.query.get("consumer_id", "")
        if not 1 <= len(value) <= 255:
            raise InvalidRequest("query.consumer_id: String should have 1 to 255 characters")
        return value

    @property
    def batch_size(self) -> int:
        """Of a pull, whose other parameters are refused here as well."""
        self.consumer_id  # noqa: B018 - to refuse it
        self.number("wait_seconds", 0, 0, 20)
        return int(self.number("batch_size", 10, 1, 100))

    @property
    def wanted_letters(self) -> models.NewRedrive:
        names = ("reason", "died_after", "died_before")
        try:
            return models.NewRedrive.model_validate({name: self.query.get(name) for name in names})
        except ValidationError as error:
            (first, *_) = error.errors()
            raise InvalidRequest(f"query.{first['loc'][0]}: {first['msg']}") from None

    @property
    def after(self) -> int:
        """The position in the token of a page."""
        token = self.query.get("page_token")
        if token is None:
            return 0
        if "offset" in self.query:
            raise InvalidRequest("query.page_token: give it or `offset`, not both")
        try:
            return int(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        except ValueError:
            raise InvalidRequest("query.page_token: take it as it is from `next_page_token` of an answer") from None

    @property
    def part(self) -> str:
        return self.query.get("q", "").lower()

    @property
    def includes_metrics(self) -> bool:
        return self.query.get("include") == "metrics"

    def page(self, found: list[Any]) -> list[Any]:
        offset = self.number("offset", 0, 0, 2**31 - 1)
        return found[offset : offset + self.number("limit", 10, 1, 100)]


Answer = tuple[int, "BaseModel | bytes | None"]
Handler = Callable[["MemoryServer", Call], Answer]
Settle = Callable[[Sequence[Target]], list[int]]
"""A call of a cursor: outcomes, or positions."""

ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        ROUTES.append((method, re.compile(path.replace("{id}", "([^/]+)")), handler))
        return handler

    return register


@dataclass
class Present:
    """A consumer, since when it holds each of its messages, and since when each of its pulls waits."""

    consumer_id: str
    leased_at: list[datetime] = field(default_factory=list)
    waits: list[datetime] = field(default_factory=list)
    now: datetime | None = None

    def consumer(self) -> models.Consumer:
        return models.Consumer(
            consumer_id=self.consumer_id,
            leased=len(self.leased_at),
            oldest_leased_at=min(self.leased_at, default=None),
            pulls=len(self.waits),
            streams=0,
            waits_since=min(self.waits, default=None),
            seen_at=self.now or max(self.leased_at),
        )


class MemoryServer:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.left: Counter[tuple[str, str]] = Counter()
        """How often a consumer has said that it leaves, by the path of the subscription."""
        self.waiting: list[tuple[str, str, datetime]] = []
        """The pulls that wait: the path of the subscription, the consumer, and since when."""
        self.redrives: defaultdict[str, list[models.Redrive]] = defaultdict(list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The body of the request was read."""
        self.store.now += datetime.resolution  # as on a server, no two calls are at the same time
        try:
            status, body = self._call(request)
        except ValidationError as error:
            return _invalid(error)
        except FastpubsubError as error:
            return _problem(error.status, error.title, error.detail)
        content = write_exactly(body.model_dump(), to_json) if isinstance(body, BaseModel) else body
        headers = {} if content is None else {"Content-Type": "application/json"}
        return httpx.Response(status, headers=headers, content=content)

    def _call(self, request: httpx.Request) -> Answer:
        path = request.url.raw_path.decode().partition("?")[0]
        for method, pattern, handler in ROUTES:
            match = pattern.fullmatch(path)
            if match and method == request.method:
                ids = [unquote(part) for part in match.groups()]
                return handler(self, Call(ids, request.url.params, request.headers, request.content))
        raise NotFound("there is nothing at this path of the bus in memory")

    @route("POST", "/oauth/token")
    def token(self, _call: Call) -> Answer:
        return 201, models.Token(access_token="in-memory", token_type="Bearer", expires_in=3600, scope="*")  # noqa: S106

    @route("POST", "/topics")
    def create_topic(self, call: Call) -> Answer:
        new = call.read(models.NewTopic)
        schema = _schema(call.body)
        topic = self.store.create_topic(new.id, new.retention_seconds)
        log = self.store.log(new.id)
        log.schema, log.topic = schema, topic.model_copy(update={"payload_schema": new.payload_schema})
        return 201, log.topic

    @route("GET", "/topics")
    def list_topics(self, call: Call) -> Answer:
        logs = [log for id_, log in sorted(self.store.logs.items()) if call.part in id_.lower()]
        return 200, models.TopicList(data=[self._topic(call, log) for log in call.page(logs)])

    @route("GET", "/topics/{id}")
    def get_topic(self, call: Call) -> Answer:
        return 200, self._topic(call, self.store.log(*call.ids))

    def _topic(self, call: Call, log: Log) -> models.Topic:
        if not call.includes_metrics:
            return log.topic
        cursors = [cursor for cursor in self.store.cursors.values() if cursor.log is log]
        return log.topic.model_copy(update={"metrics": log.figures(len(cursors))})

    @route("PATCH", "/topics/{id}")
    def update_topic(self, call: Call) -> Answer:
        log = self.store.log(*call.ids)
        changed = call.read(models.ChangedTopic)
        if "payload_schema" in changed.model_fields_set:
            log.schema = _schema(call.body)
        log.topic = log.topic.model_copy(update=changed.model_dump(exclude_unset=True))
        return 200, log.topic

    @route("DELETE", "/topics/{id}")
    def delete_topic(self, call: Call) -> Answer:
        self.store.delete_topic(*call.ids)
        return 204, None

    @route("POST", "/topics/{id}/messages")
    def publish(self, call: Call) -> Answer:
        batch = parse_batch(call.body, max_messages=MAX_MESSAGES, max_depth=MAX_DEPTH)
        log = self.store.log(*call.ids)
        key, digest = call.headers.get("idempotency-key"), hashlib.sha256(call.body).digest()
        first_digest, ids = log.keys.get(key or "", (digest, None))
        if first_digest != digest:
            raise InvalidRequest("this Idempotency-Key was used with another body; repeat that body, or use a new key")
        if key is not None and not 1 <= len(key) <= MAX_KEY_CHARACTERS:
            raise InvalidRequest(f"send one Idempotency-Key of 1 to {MAX_KEY_CHARACTERS} characters")
        if ids is None:
            if log.schema is not None:
                log.schema.check(batch.payloads)
            ids = log.publish(batch.payloads, batch.attributes or [None] * len(batch.payloads), self.store.now)
        if key:
            log.keys[key] = (digest, ids)
        return (201, models.PublishedIds(ids=ids)) if call.prefers_representation else (204, None)

    @route("GET", "/topics/{id}/messages")
    def browse_topic(self, call: Call) -> Answer:
        log = self.store.log(*call.ids)
        backwards = "from" not in call.query
        place = parse_place(call.query.get("from", call.query.get("before")), log.key)
        start = log.last + 1 if place == (None, None) else _start(log, place)
        messages: list[Seen] = [
            (p, log.messages[p], {}) for p in log.messages if (p < start if backwards else p >= start)
        ]
        found, looked_at, stop = _search(call, messages[::-1] if backwards else messages)
        end = None if stop is None else stop[0]
        if backwards:
            found.reverse()
            ends = start if start in log.messages else None, None if end is None else end + 1
        else:
            ends = end, start if start - 1 in log.messages else None
        return 200, _browsed(log, found, looked_at=looked_at, next=ends[0], previous=ends[1])

    @route("GET", "/subscriptions/{id}/messages/browse")
    def browse(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        state, text = call.query.get("state", "ahead"), call.query.get("from")
        place = parse_due(text) if state == "waiting" else parse_place(text, cursor.log.key)
        messages: list[Seen] = []
        for position, more in cursor.browse(state):
            key = (more["due_at"], position) if state == "waiting" else (position,)
            start = (place.time or key[0], place.position or 0) if state == "waiting" else (_start(cursor.log, place),)
            message = cursor.dead[position].message if state == "dead" else cursor.message(position)
            if key >= start:
                messages.append((position, message, {"state": state} | more))
        found, looked_at, stop = _search(call, messages)
        after: int | str | None = None if stop is None else stop[0]
        if stop is not None and state == "waiting":
            after = f"{_time(stop[2]['due_at'])}/{after}"
        return 200, _browsed(cursor.log, found, looked_at=looked_at, next=after)

    @route("POST", "/subscriptions")
    def create_subscription(self, call: Call) -> Answer:
        new = call.read(models.NewSubscription)
        return 201, self.store.create_subscription(new, _filter(call.body))

    @route("GET", "/subscriptions")
    def list_subscriptions(self, call: Call) -> Answer:
        found = [cursor for id_, cursor in sorted(self.store.cursors.items()) if call.part in id_.lower()]
        if topic_id := call.query.get("topic_id"):
            found = [cursor for cursor in found if cursor.subscription.topic_id == topic_id]
        return 200, models.SubscriptionList(data=[self._subscription(call, cursor) for cursor in call.page(found)])

    @route("GET", "/subscriptions/{id}")
    def get_subscription(self, call: Call) -> Answer:
        return 200, self._subscription(call, self.store.cursor(*call.ids))

    def _subscription(self, call: Call, cursor: Cursor) -> models.Subscription:
        if not call.includes_metrics:
            return cursor.subscription
        return cursor.subscription.model_copy(update={"metrics": cursor.figures(self.store.now)})

    @route("GET", "/overview")
    def overview(self, _call: Call) -> Answer:
        """The sums; what somebody should look at is the server's."""
        cursors = self.store.cursors.values()
        return 200, models.Overview(
            topics=len(self.store.logs),
            subscriptions=len(cursors),
            published=sum(log.last for log in self.store.logs.values()),
            ahead=sum(len(cursor.ahead()) for cursor in cursors),
            ahead_is_estimated=False,
            leased=sum(len(cursor.leases) for cursor in cursors),
            waiting=sum(len(cursor.waiting) for cursor in cursors),
            dlq=sum(len(cursor.dead) for cursor in cursors),
            is_authentication_on=False,
            version=__version__,
            server_time=self.store.now,
            findings=[],
        )

    @route("PATCH", "/subscriptions/{id}")
    def update_subscription(self, call: Call) -> Answer:
        changed = call.read(models.ChangedSubscription)
        return 200, self.store.update_subscription(call.ids[0], changed, _filter(call.body))

    @route("DELETE", "/subscriptions/{id}")
    def delete_subscription(self, call: Call) -> Answer:
        self.store.delete_subscription(*call.ids)
        self.redrives.pop(call.ids[0], None)
        return 204, None

    @route("GET", "/subscriptions/{id}/metrics")
    def metrics(self, call: Call) -> Answer:
        return 200, self.store.cursor(*call.ids).metrics()

    @route("GET", "/subscriptions/{id}/messages/{id}")
    def explain(self, call: Call) -> Answer:
        """The state, with what a lease, a retry or a dead letter says; the words are the server's."""
        subscription_id, message_id = call.ids
        cursor = self.store.cursor(subscription_id)
        place = message_ids.parse(message_id)
        if place is None or place.topic_key != cursor.log.key or not 0 < place.position <= cursor.log.last:
            raise NotFound(f"there is no message {message_id} in the topic of the subscription")
        state, _ = cursor.explain(place.position)
        is_seen = state in ("leased", "waiting", "dead")
        more = dict(cursor.browse(state))[place.position] if is_seen else {}
        return 200, models.Explanation(
            message_id=UUID(message_id), subscription_id=subscription_id, state=state, detail=f"it is {state}", **more
        )

    @route("GET", "/subscriptions/{id}/consumers")
    def list_consumers(self, call: Call) -> Answer:
        """Those that hold messages, and those whose pull waits at this moment."""
        found = [one.consumer() for one in self._present(*call.ids).values()]
        return 200, models.ConsumerList(data=sorted(found, key=lambda one: one.consumer_id))

    def _present(self, subscription_id: str) -> dict[str, "Present"]:
        present: dict[str, Present] = {}
        for lease in self.store.cursor(subscription_id).leases.values():
            present.setdefault(lease.consumer_id, Present(lease.consumer_id)).leased_at.append(lease.leased_at)
        for path, consumer_id, since in self.waiting:
            if path == f"/subscriptions/{subscription_id}":
                one = present.setdefault(consumer_id, Present(consumer_id))
                one.waits.append(since)
                one.now = self.store.now
        return present

    @route("POST", "/subscriptions/{id}/pause")
    def pause(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        cursor.pause(self.store.now)
        return 200, cursor.subscription

    @route("POST", "/subscriptions/{id}/resume")
    def resume(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        cursor.pause(None)
        return 200, cursor.subscription

    @route("POST", "/subscriptions/{id}/purge")
    def purge(self, call: Call) -> Answer:
        return 200, models.PurgedSubscription(purged=self.store.cursor(*call.ids).settle_all(), is_estimated=False)

    @route("POST", "/subscriptions/{id}/seek")
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

    @route("GET", "/subscriptions/{id}/messages")
    def pull(self, call: Call) -> Answer:
        return 200, self._claim(self.store.cursor(*call.ids), call.batch_size, call.consumer_id)

    @route("POST", "/subscriptions/{id}/pulls")
    def settle_and_pull(self, call: Call) -> Answer:
        body = call.read(models.Settles)
        groups: list[models.Nack | models.Reject | models.Extend] = [*body.nacks, *body.rejects, *body.leases]
        _bounded(body.acks + [id_ for one in groups for id_ in one.ids])
        cursor, limit = self.store.cursor(*call.ids), call.batch_size
        answer = {name: models.Settled(settled=[], gone=[], stale=[]) for name in models.Settles.model_fields}
        for name, ids, settle in self._settles(cursor, body):
            _sort(ids, _outcomes(cursor, ids, settle), answer[name])
        data = self._claim(cursor, limit, call.consumer_id)
        if not call.prefers_representation:
            return 200, data
        settled = b"".join(b',"%b":%b' % (k.encode(), v.model_dump_json().encode()) for k, v in answer.items())
        return 200, data[:-1] + settled + b"}"

    def _settles(self, cursor: Cursor, body: models.Settles) -> Iterator[tuple[str, list[str], Settle]]:
        """In the order of the server."""
        now = self.store.now
        yield "acks", body.acks, cursor.ack
        for nack in body.nacks:
            delays = [nack.delay_seconds] * len(nack.ids)
            if not nack.undelivered:
                yield "nacks", nack.ids, partial(cursor.nack, delays=delays, now=now)
        for nack in body.nacks:
            if nack.undelivered:
                yield "nacks", nack.ids, partial(cursor.give_back, now=now)
        for reject in body.rejects:
            yield "rejects", reject.ids, partial(cursor.reject, reasons=[reject.reason] * len(reject.ids), now=now)
        for extend in body.leases:
            yield "leases", extend.ids, partial(cursor.extend, seconds=extend.extend_seconds, now=now)

    def _claim(self, cursor: Cursor, limit: int, consumer_id: str) -> bytes:
        claimed = cursor.claim(limit, self.store.now, consumer_id=consumer_id, max_bytes=MAX_PULL_BYTES)
        data = _data([_delivery(cursor, one) for one in claimed])
        return data[:-1] + b',"paused":true}' if cursor.is_paused else data

    @route("POST", "/subscriptions/{id}/acks")
    def ack(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        return _settled(call, cursor, parse_ids(call.body, max_ids=MAX_IDS), cursor.ack)

    @route("POST", "/subscriptions/{id}/nacks")
    def nack(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        delay = call.number("delay_seconds", None, 0, models.MAX_DELAY_SECONDS)
        undelivered = call.flag("undelivered")
        if undelivered and delay is not None:
            raise InvalidRequest(models.UNDELIVERED_AND_DELAYED)
        ids = parse_ids(call.body, max_ids=MAX_IDS)
        if undelivered:
            return _settled(call, cursor, ids, lambda targets: cursor.give_back(targets, self.store.now))
        return _settled(call, cursor, ids, lambda targets: cursor.nack(targets, [delay] * len(ids), self.store.now))

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
        return _settled(
            call, cursor, _bounded(body.ids), lambda targets: cursor.reject(targets, reasons, self.store.now)
        )

    @route("POST", "/subscriptions/{id}/leases")
    def extend(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        body = call.read(models.Extend)
        outcomes = _outcomes(
            cursor, _bounded(body.ids), lambda targets: cursor.extend(targets, body.extend_seconds, self.store.now)
        )
        kept = [id_ for id_, outcome in zip(body.ids, outcomes, strict=True) if outcome == SETTLED]
        return 200, models.Extended(ids=kept)

    @route("GET", "/subscriptions/{id}/dlq")
    def list_dead_letters(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        wanted, after = call.wanted_letters, call.after
        found = [one for one in sorted(cursor.dead.items()) if one[0] > after and _fits(wanted, one[1])]
        letters = call.page(found)
        data = _data([_letter(cursor, position, dead) for position, dead in letters])
        if not letters or letters[-1] is found[-1]:
            return 200, data
        token = base64.urlsafe_b64encode(str(letters[-1][0]).encode()).decode().rstrip("=")
        return 200, data[:-1] + b',"next_page_token":' + to_json(token) + b"}"

    @route("POST", "/subscriptions/{id}/dlq/reprocess")
    def reprocess(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        return _moved(call, cursor, lambda targets: cursor.reprocess(targets, self.store.now))

    @route("DELETE", "/subscriptions/{id}/dlq")
    def purge_dead_letters(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        return _moved(call, cursor, cursor.purge)

    @route("GET", "/subscriptions/{id}/dlq/reasons")
    def list_dead_letter_reasons(self, call: Call) -> Answer:
        times: dict[str, list[datetime]] = {}
        for dead in self.store.cursor(*call.ids).dead.values():
            times.setdefault(dead.reason, []).append(dead.died_at)
        found = [
            models.DeadLetterReason(reason=reason, count=len(died), first_died_at=min(died), last_died_at=max(died))
            for reason, died in sorted(times.items(), key=lambda item: (-len(item[1]), item[0]))
        ]
        return 200, models.DeadLetterReasonList(data=found[:MAX_REASONS])

    @route("POST", "/subscriptions/{id}/redrives")
    def create_redrive(self, call: Call) -> Answer:
        """It is done at once, whatever its rate."""
        subscription_id, new = call.ids[0], call.read(models.NewRedrive)
        cursor = self.store.cursor(subscription_id)
        return 201, self._redrive(cursor, new)

    @route("GET", "/subscriptions/{id}/redrives")
    def list_redrives(self, call: Call) -> Answer:
        self.store.cursor(*call.ids)
        return 200, models.RedriveList(data=self.redrives[call.ids[0]][::-1])

    @route("GET", "/subscriptions/{id}/redrives/{id}")
    def get_redrive(self, call: Call) -> Answer:
        return 200, self._find_redrive(*call.ids)

    @route("DELETE", "/subscriptions/{id}/redrives/{id}")
    def cancel_redrive(self, call: Call) -> Answer:
        self._find_redrive(*call.ids)
        return 204, None

    def _redrive(self, cursor: Cursor, new: models.NewRedrive) -> models.Redrive:
        now = self.store.now
        before = min(new.died_before or now, now)
        matched = [
            Target(place, position, None, dead.message.created_at)
            for place, (position, dead) in enumerate(sorted(cursor.dead.items()))
            if _fits(new, dead) and dead.died_at < before
        ]
        moved = cursor.purge(matched) if new.action == "purge" else cursor.reprocess(matched, now)
        made = self.redrives[cursor.subscription.id]
        redrive = models.Redrive(
            **new.model_dump(exclude={"died_before"}),
            id=sum(map(len, self.redrives.values())) + 1,
            subscription_id=cursor.subscription.id,
            state="done",
            died_before=before,
            matched=len(matched),
            done=len(moved),
            created_at=now,
            ended_at=now,
        )
        made.append(redrive)
        return redrive

    def _find_redrive(self, subscription_id: str, redrive_id: str) -> models.Redrive:
        self.store.cursor(subscription_id)
        for redrive in self.redrives[subscription_id]:
            if str(redrive.id) == redrive_id:
                return redrive
        raise NotFound(f'subscription "{subscription_id}" has no redrive {redrive_id}')


def _fits(wanted: models.NewRedrive, dead: Dead) -> bool:
    return (
        (wanted.reason is None or dead.reason == wanted.reason)
        and (wanted.died_after is None or dead.died_at >= wanted.died_after)
        and (wanted.died_before is None or dead.died_at < wanted.died_before)
    )


def _seek_preview(cursor: Cursor, to: str | datetime | int) -> models.SeekPreview:
    """Without the times, which are for people."""
    return models.SeekPreview(
        ahead_now=len(cursor.ahead()),
        ahead_after=len(cursor.log.matching(cursor.log.before(to), cursor.wanted)),
        is_estimated=False,
        ends_leased=len(cursor.leases),
        ends_waiting=len(cursor.waiting),
    )


def _filter_tested(log: Log, cursor: Cursor | None, call: Call) -> models.FilterTested:
    """Without the reasons, whose words are the server's."""
    asked, wanted = call.read(models.FilterTest), _filter(call.body)
    if asked.payload is not None:
        return models.FilterTested(passes=matches(wanted, member(call.body, "payload") or b"null"))
    last = sorted(log.messages)[-(asked.last or DEFAULT_LAST) :][::-1]
    passing = [position for position in last if matches(wanted, log.messages[position].payload)]
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


def _schema(body: bytes) -> PayloadSchema | None:
    raw = member(body, "schema")
    return None if raw is None or raw == b"null" else PayloadSchema(raw)


def _filter(body: bytes) -> Filter | None:
    return read_filter(member(body, "filter"))


def _bounded(ids: list[str]) -> list[str]:
    if len(ids) > MAX_IDS:
        raise TooLarge(f"the body has more ids than the {MAX_IDS} of one request; send several")
    return ids


def _outcomes(cursor: Cursor, ids: list[str], settle: Settle) -> list[int]:
    targets = list(parse_targets(ids, cursor.log.key).singly())
    outcomes = [GONE] * len(ids)
    for one, outcome in zip(targets, settle(targets), strict=True):
        outcomes[one.place] = outcome
    return outcomes


def _settled(call: Call, cursor: Cursor, ids: list[str], settle: Settle) -> Answer:
    outcomes = _outcomes(cursor, ids, settle)
    if not call.prefers_representation:
        return 204, None
    answer = models.Settled(settled=[], gone=[], stale=[])
    _sort(ids, outcomes, answer)
    return 200, answer


def _sort(ids: list[str], outcomes: list[int], answer: models.Settled) -> None:
    for id_, outcome in zip(ids, outcomes, strict=True):
        {SETTLED: answer.settled, STALE: answer.stale}.get(outcome, answer.gone).append(id_)


def _moved(call: Call, cursor: Cursor, move: Settle) -> Answer:
    ids = parse_ids(call.body, max_ids=MAX_IDS)
    targets = list(parse_targets(ids, cursor.log.key).singly())
    moved = set(move(targets))
    answer = models.Moved(ids=[ids[one.place] for one in targets if one.position in moved])
    return (200, answer) if call.prefers_representation else (204, None)


def _delivery(cursor: Cursor, claimed: Claimed) -> bytes:
    position, message, lease = claimed
    more = {
        "delivery_attempts": lease.attempts,
        "ack_id": message_ids.ack_id(cursor.log.id_of(position, message), lease.token),
        "lease_expires_at": _time(lease.expires_at),
        "lease_seconds": cursor.subscription.ack_deadline_seconds,
    }
    return _message(cursor, position, message, more)


def _letter(cursor: Cursor, position: int, dead: Dead) -> bytes:
    more = {"delivery_attempts": dead.attempts, "reason": dead.reason, "died_at": _time(dead.died_at)}
    return _message(cursor, position, dead.message, more)


def _message(cursor: Cursor, position: int, stored: Stored, more: dict[str, Any]) -> bytes:
    """The payload verbatim."""
    fields = {
        "id": cursor.log.id_of(position, stored),
        "subscription_id": cursor.subscription.id,
        "created_at": _time(stored.created_at),
        **more,
    }
    return _with_content(fields, stored)


def _with_content(fields: dict[str, Any], stored: Stored) -> bytes:
    attributes = b"" if stored.attributes is None else b',"attributes":' + stored.attributes
    return json.dumps(fields).encode()[:-1] + b',"payload":' + stored.payload + attributes + b"}"


Seen = tuple[int, Stored, dict[str, Any]]


def _start(log: Log, place: Place) -> int:
    return log.before(place.time) + 1 if place.time is not None else place.position or 0


def _search(call: Call, messages: list[Seen]) -> tuple[list[Seen], int, Seen | None]:
    """What was found, how many were looked at, and what comes next."""
    limit, q = call.number("limit", 10, 1, 100), call.query.get("q")
    search = None if q is None else parse_search(q)
    found: list[Seen] = []
    for looked_at, one in enumerate(messages):
        if len(found) == limit:
            return found, looked_at, one
        if is_found(search, one[1]):
            found.append(one)
    return found, len(messages), None


def _browsed(log: Log, found: list[Seen], **ends: int | str | None) -> bytes:
    parts = []
    for position, stored, more in found:
        times = {name: _time(value) if isinstance(value, datetime) else value for name, value in more.items()}
        fields = {"id": log.id_of(position, stored), "position": position, "created_at": _time(stored.created_at)}
        parts.append(_with_content(fields | times, stored))
    return _data(parts)[:-1] + b"," + to_json(ends)[1:]


def _data(parts: list[bytes]) -> bytes:
    return b'{"data":[' + b",".join(parts) + b"]}"


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _problem(status: int, title: str, detail: str, **extra: Any) -> httpx.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": "in-memory"}
    return httpx.Response(status, headers={"Content-Type": "application/problem+json"}, json=body | extra)


def _invalid(error: ValidationError) -> httpx.Response:
    errors = [
        {"type": one["type"], "loc": ["body", *one["loc"]], "msg": one["msg"]}
        for one in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    where = ".".join(str(part) for part in errors[0]["loc"])
    return _problem(422, InvalidRequest.title, f"{where}: {errors[0]['msg']}", errors=errors[:10])
