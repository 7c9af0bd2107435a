"""The OpenAPI description of the routes that read their body and query themselves."""

from typing import Any

from pydantic import BaseModel

from fastpubsub.cloudevents import BATCH, STRUCTURED
from fastpubsub.models import (
    ID_PATTERN,
    MAX_DELAY_SECONDS,
    MAX_MESSAGE_DELAY_SECONDS,
    MAX_ORDERING_KEY,
    MAX_TTL_SECONDS,
    REFUSED_ID_PATTERN,
    DelayedNack,
    Extend,
    Nack,
    Reject,
)

_OBJECT = {"type": "object", "additionalProperties": True}
_IDS = {
    "type": "array",
    "items": {"type": "string", "pattern": ID_PATTERN},
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "example": "return=representation",
    "description": "answer with the outcome of each message; leave it out for an answer without a body",
}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _query(name: str, schema: dict[str, Any], description: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": description}


def _list_of(model: type[BaseModel]) -> dict[str, Any]:
    """A model that refers to no other."""
    return {"type": "array", "items": model.model_json_schema()}


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


_MESSAGES = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["payload"],
        "properties": {
            "payload": _OBJECT,
            "attributes": {"type": "object", "additionalProperties": {"type": "string"}},
            "ordering_key": {"type": "string", "minLength": 1, "maxLength": MAX_ORDERING_KEY},
            "deliver_at": {"type": "string", "format": "date-time"},
            "delay_seconds": {"type": "integer", "minimum": 1, "maximum": MAX_MESSAGE_DELAY_SECONDS},
            "ttl_seconds": {"type": "integer", "minimum": 1, "maximum": MAX_TTL_SECONDS},
            "expires_at": {"type": "string", "format": "date-time"},
        },
    },
}

PUBLISH: dict[str, Any] = {
    "parameters": [
        _path("topic_id"),
        _PREFER,
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": "a repetition with the same key and body stores nothing and gets the first answer",
        },
    ],
    "requestBody": _body(
        {
            "oneOf": [
                {
                    "title": "Payloads",
                    "type": "array",
                    "items": _OBJECT,
                },
                {
                    "title": "Envelope",
                    "type": "object",
                    "required": ["messages"],
                    "properties": {"messages": _MESSAGES},
                },
            ]
        }
    ),
}

_EVENT = {
    "type": "object",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {
        "specversion": {"type": "string", "const": "1.0"},
        "id": {"type": "string"},
        "source": {"type": "string"},
        "type": {"type": "string"},
        "data": _OBJECT,
    },
}
EVENTS: dict[str, Any] = {BATCH: {"schema": {"title": "CloudEvents", "type": "array", "items": _EVENT}}}
PUBLISH["requestBody"]["content"] |= EVENTS | {STRUCTURED: {"schema": {"title": "CloudEvent", **_EVENT}}}

PULL: dict[str, Any] = {
    "parameters": [
        _path("subscription_id"),
        _query(
            "consumer_id",
            {"type": "string", "minLength": 1, "maxLength": 255},
            "a name for the consumer that you choose; it holds the messages",
            required=True,
        ),
        _query(
            "batch_size",
            {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
            "the highest number of messages",
        ),
        _query(
            "wait_seconds",
            {"type": "integer", "minimum": 0, "maximum": 20, "default": 0},
            "how long to wait for a message when there is none; `Prefer: wait=<seconds>` is the same",
        ),
    ]
}

LEAVE: dict[str, Any] = {"parameters": PULL["parameters"][:2]}

STREAM: dict[str, Any] = {
    "parameters": [
        *PULL["parameters"][:2],
        _query(
            "max_in_flight",
            {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
            "how many messages the consumer may hold at the same time",
        ),
    ]
}

TAIL: dict[str, Any] = {
    "parameters": [
        _path("topic_id"),
        {
            "name": "Last-Event-ID",
            "in": "header",
            "schema": {"type": "string", "format": "uuid"},
            "description": "the id of the message after which to continue; leave it out to start now",
        },
        _query(
            "recent",
            {"type": "integer", "minimum": 0, "maximum": 1000, "default": 0},
            "how many earlier messages to begin with, unless there is a `Last-Event-ID`",
        ),
        _query("filter", {"type": "string"}, "a filter as JSON: only the messages that pass it come"),
    ]
}

SETTLE: dict[str, Any] = {"parameters": [_path("subscription_id"), _PREFER], "requestBody": _body(_IDS)}

REFUSED: dict[str, Any] = {
    "parameters": [_path("topic_id"), _PREFER],
    "requestBody": _body({"type": "array", "items": {"type": "string", "pattern": REFUSED_ID_PATTERN}}),
}

SETTLE_AND_PULL: dict[str, Any] = {
    "parameters": [*PULL["parameters"], _PREFER],
    "requestBody": _body(
        {
            "title": "Settles",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "acks": _IDS,
                "nacks": _list_of(Nack),
                "rejects": _list_of(Reject),
                "leases": _list_of(Extend),
            },
        }
    ),
}

TRANSACTION: dict[str, Any] = {
    "requestBody": _body(
        {
            "title": "Transaction",
            "type": "object",
            "required": ["settles"],
            "additionalProperties": False,
            "properties": {
                "settles": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["subscription_id"],
                        "additionalProperties": False,
                        "properties": {
                            "subscription_id": {"type": "string"},
                            "acks": _IDS,
                            "nacks": _list_of(DelayedNack),
                            "rejects": _list_of(Reject),
                        },
                    },
                },
                "publishes": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["topic_id", "messages"],
                        "additionalProperties": False,
                        "properties": {"topic_id": {"type": "string"}, "messages": _MESSAGES},
                    },
                },
            },
        }
    )
}

REJECT: dict[str, Any] = {"parameters": SETTLE["parameters"]}

NACK: dict[str, Any] = {
    "parameters": [
        *SETTLE["parameters"],
        _query(
            "delay_seconds",
            {"type": "integer", "minimum": 0, "maximum": MAX_DELAY_SECONDS},
            "the wait before the next delivery, instead of the backoff of the subscription",
        ),
        _query(
            "undelivered",
            {"type": "boolean", "default": False},
            "the consumer has not looked at the messages: they are due at once, and the attempt does not count",
        ),
    ],
    "requestBody": _body({"oneOf": [{"title": "Ids", **_IDS}, Nack.model_json_schema()]}),
}
