"""Topics of the bus in memory, and publishing."""

import hashlib

from fastpubsub import models
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.json_text import member
from fastpubsub.payload_schemas import PayloadSchema
from fastpubsub.payloads import parse_batch
from fastpubsub.testing.calls import Answer, Call, Part, route
from fastpubsub.testing.delayed import publish
from fastpubsub.testing.store.log import Log

MAX_MESSAGES = 1000
MAX_DEPTH = 64
MAX_KEY_CHARACTERS = 255


class Topics(Part):
    @route("POST", "/topics", "create_topic")
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
        return log.topic.model_copy(update={"metrics": log.figures(len(cursors), self.store.now)})

    @route("PATCH", "/topics/{id}", "update_topic")
    def update_topic(self, call: Call) -> Answer:
        log = self.store.log(*call.ids)
        changed = call.read(models.ChangedTopic)
        if "payload_schema" in changed.model_fields_set:
            log.schema = _schema(call.body)
        log.topic = log.topic.model_copy(update=changed.model_dump(exclude_unset=True))
        return 200, log.topic

    @route("DELETE", "/topics/{id}", "delete_topic")
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
            later = sum(delay != (None, None) for delay in batch.delays or ())
            self.store.require_room(log, len(batch.payloads) - later)
            ids = publish(self.store, log, batch)
        if key:
            log.keys[key] = (digest, ids)
        return (201, models.PublishedIds(ids=ids)) if call.prefers_representation else (204, None)


def _schema(body: bytes) -> PayloadSchema | None:
    raw = member(body, "schema")
    return None if raw is None or raw == b"null" else PayloadSchema(raw)
