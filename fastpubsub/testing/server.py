"""The HTTP API over the store in memory: the routes that clients and workers use."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from fastpubsub import message_ids, models
from fastpubsub.exceptions import FastpubsubError, InvalidRequest, NotFound, TooLarge
from fastpubsub.message_ids import parse_targets
from fastpubsub.payloads import check_json, member, parse_batch, parse_ids
from fastpubsub.testing.store import SETTLED, STALE, Cursor, Filter, Lease, Store

Model = TypeVar("Model", bound=BaseModel)

MAX_MESSAGES = MAX_IDS = 1000
MAX_DEPTH = 64


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
        return model.model_validate_json(self.body)

    def number(self, name: str, default: int | None, low: int, high: int) -> Any:
        value = self.query.get(name)
        if value is None:
            return default
        if not value.isdecimal() or not low <= int(value) <= high:
            raise InvalidRequest(f"query.{name}: Input should be a whole number from {low} to {high}")
        return int(value)

    def page(self, found: list[Any]) -> list[Any]:
        offset = self.number("offset", 0, 0, 2**31 - 1)
        return found[offset : offset + self.number("limit", 10, 1, 100)]


Answer = tuple[int, "BaseModel | bytes | None"]
Handler = Callable[["Server", Call], Answer]
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        ROUTES.append((method, re.compile(path.replace("{id}", "([^/]+)")), handler))
        return handler

    return register


class Server:
    def __init__(self, store: Store) -> None:
        self.store = store

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The body of the request was read."""
        try:
            status, body = self._call(request)
        except ValidationError as error:
            return _invalid(error)
        except FastpubsubError as error:
            return _problem(error.status, error.title, error.detail)
        content = body.model_dump_json().encode() if isinstance(body, BaseModel) else body
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
        return 201, self.store.create_topic(new.id, new.retention_seconds)

    @route("GET", "/topics")
    def list_topics(self, call: Call) -> Answer:
        logs = sorted(self.store.logs.items())
        return 200, models.TopicList(data=[log.topic for _, log in call.page(logs)])

    @route("GET", "/topics/{id}")
    def get_topic(self, call: Call) -> Answer:
        return 200, self.store.log(*call.ids).topic

    @route("PATCH", "/topics/{id}")
    def update_topic(self, call: Call) -> Answer:
        log = self.store.log(*call.ids)
        log.topic = log.topic.model_copy(update=call.read(models.ChangedTopic).model_dump())
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
            raise InvalidRequest("this Idempotency-Key was used with another body; repeat that body, or take a new key")
        if ids is None:
            ids = self.store.publish(call.ids[0], batch.payloads, batch.attributes or [None] * len(batch.payloads))
        if key:
            log.keys[key] = (digest, ids)
        return (201, models.PublishedIds(ids=ids)) if call.prefers_representation else (204, None)

    @route("POST", "/subscriptions")
    def create_subscription(self, call: Call) -> Answer:
        new = call.read(models.NewSubscription)
        return 201, self.store.create_subscription(new, _filter(call.body))

    @route("GET", "/subscriptions")
    def list_subscriptions(self, call: Call) -> Answer:
        cursors = sorted(self.store.cursors.items())
        return 200, models.SubscriptionList(data=[cursor.subscription for _, cursor in call.page(cursors)])

    @route("GET", "/subscriptions/{id}")
    def get_subscription(self, call: Call) -> Answer:
        return 200, self.store.cursor(*call.ids).subscription

    @route("PATCH", "/subscriptions/{id}")
    def update_subscription(self, call: Call) -> Answer:
        changed = call.read(models.ChangedSubscription)
        return 200, self.store.update_subscription(call.ids[0], changed, _filter(call.body))

    @route("DELETE", "/subscriptions/{id}")
    def delete_subscription(self, call: Call) -> Answer:
        self.store.cursor(*call.ids)
        del self.store.cursors[call.ids[0]]
        return 204, None

    @route("GET", "/subscriptions/{id}/metrics")
    def metrics(self, call: Call) -> Answer:
        return 200, self.store.cursor(*call.ids).metrics()

    @route("POST", "/subscriptions/{id}/seek")
    def seek(self, call: Call) -> Answer:
        to: str | datetime | UUID | int = call.read(models.Seek).to
        cursor = self.store.cursor(*call.ids)
        if isinstance(to, UUID):
            message = message_ids.parse(str(to))
            if message is None or message.topic_key != cursor.log.key:
                raise InvalidRequest(f'{to} is no message of the topic of subscription "{call.ids[0]}"')
            to = message.position
        self.store.seek(call.ids[0], to)
        return 204, None

    @route("GET", "/subscriptions/{id}/messages")
    def pull(self, call: Call) -> Answer:
        if not 1 <= len(call.query.get("consumer_id", "")) <= 255:
            raise InvalidRequest("query.consumer_id: String should have 1 to 255 characters")
        cursor = self.store.cursor(*call.ids)
        claimed = cursor.claim(call.number("batch_size", 10, 1, 100), self.store.now)
        return 200, _data([_delivery(cursor, one.position, one.lease) for one in claimed])

    @route("POST", "/subscriptions/{id}/acks")
    def ack(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        ids = parse_ids(call.body, max_ids=MAX_IDS)
        outcomes, held = cursor.settle(ids)
        for position, _ in held:
            cursor.done(position)
        return _settled(call, ids, outcomes)

    @route("POST", "/subscriptions/{id}/nacks")
    def nack(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        delay = call.number("delay_seconds", None, 0, 604800)
        ids = parse_ids(call.body, max_ids=MAX_IDS)
        outcomes, held = cursor.settle(ids)
        for position, lease in held:
            cursor.fail(position, lease.attempts, delay, self.store.now, "nacked")
        return _settled(call, ids, outcomes)

    @route("POST", "/subscriptions/{id}/rejects")
    def reject(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        body = call.read(models.Reject)
        outcomes, held = cursor.settle(_bounded(body.ids))
        for position, lease in held:
            cursor.die(position, lease.attempts, body.reason, self.store.now)
        return _settled(call, body.ids, outcomes)

    @route("POST", "/subscriptions/{id}/leases")
    def extend(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        body = call.read(models.Extend)
        outcomes, held = cursor.settle(_bounded(body.ids), ends=False)
        for _, lease in held:
            lease.expires_at = self.store.now + datetime.resolution * body.extend_seconds * 1_000_000
        kept = [id_ for id_, outcome in zip(body.ids, outcomes, strict=True) if outcome == SETTLED]
        return 200, models.Extended(ids=kept)

    @route("GET", "/subscriptions/{id}/dlq")
    def list_dead_letters(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        return 200, _data([_letter(cursor, position) for position in call.page(sorted(cursor.dead))])

    @route("POST", "/subscriptions/{id}/dlq/reprocess")
    def reprocess(self, call: Call) -> Answer:
        return self._move(call, lambda cursor, targets: cursor.reprocess(targets, self.store.now))

    @route("DELETE", "/subscriptions/{id}/dlq")
    def purge(self, call: Call) -> Answer:
        return self._move(call, Cursor.purge)

    def _move(self, call: Call, move: Callable[[Cursor, message_ids.Targets], list[int]]) -> Answer:
        cursor = self.store.cursor(*call.ids)
        ids = parse_ids(call.body, max_ids=MAX_IDS)
        targets = parse_targets(ids, cursor.log.key)
        moved = set(move(cursor, targets))
        answer = models.Moved(ids=[ids[one.place] for one in targets.singly() if one.position in moved])
        return (200, answer) if call.prefers_representation else (204, None)


def _filter(body: bytes) -> Filter | None:
    """With its numbers as they are written."""
    raw = member(body, "filter")
    if raw is None:
        return None
    wanted: Filter | None = json.loads(raw, parse_float=Decimal, parse_int=Decimal)
    for name, values in (wanted or {}).items():
        if not values:
            raise InvalidRequest(f'the filter of "{name}" has no values, so no message could match')
    return wanted or None


def _bounded(ids: list[str]) -> list[str]:
    if len(ids) > MAX_IDS:
        raise TooLarge(f"{len(ids)} ids are more than the {MAX_IDS} of one request; send several")
    return ids


def _settled(call: Call, ids: list[str], outcomes: list[int]) -> Answer:
    if not call.prefers_representation:
        return 204, None
    answer = models.Settled(settled=[], gone=[], stale=[])
    for id_, outcome in zip(ids, outcomes, strict=True):
        {SETTLED: answer.settled, STALE: answer.stale}.get(outcome, answer.gone).append(id_)
    return 200, answer


def _delivery(cursor: Cursor, position: int, lease: Lease) -> bytes:
    id_ = cursor.log.id_of(position)
    more = {
        "delivery_attempts": lease.attempts,
        "ack_id": message_ids.ack_id(id_, lease.token),
        "lease_expires_at": _time(lease.expires_at),
    }
    return _message(cursor, position, more)


def _letter(cursor: Cursor, position: int) -> bytes:
    dead = cursor.dead[position]
    more = {"delivery_attempts": dead.attempts, "reason": dead.reason, "died_at": _time(dead.died_at)}
    return _message(cursor, position, more)


def _message(cursor: Cursor, position: int, more: dict[str, Any]) -> bytes:
    """The payload verbatim."""
    stored = cursor.log.at(position)
    fields = {
        "id": cursor.log.id_of(position),
        "subscription_id": cursor.subscription.id,
        "created_at": _time(stored.created_at),
        **more,
    }
    attributes = b"" if stored.attributes is None else b',"attributes":' + stored.attributes
    return json.dumps(fields).encode()[:-1] + b',"payload":' + stored.payload + attributes + b"}"


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
