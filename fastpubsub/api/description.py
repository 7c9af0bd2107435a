"""What the OpenAPI document says beyond the models: names, examples, settings of this server, and each refusal."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from fastapi import FastAPI

from fastpubsub.api.errors import DOCUMENTED, MEDIA_TYPE
from fastpubsub.api.security import SCHEME
from fastpubsub.config import Settings
from fastpubsub.scopes import SCOPES

PROBLEM = {"$ref": "#/components/schemas/Problem"}
EXAMPLE_ID = "550e8400-e29b-41d4-a716-446655440000"
TOPIC, SUBSCRIPTION = "user-events", "user-events-processor"

TAGS = [
    {"name": "topics", "description": "Create topics, publish to them, and follow what is published."},
    {"name": "subscriptions", "description": "Create subscriptions, change them, count their messages, and seek."},
    {"name": "messages", "description": "Pull and settle messages, and find out what happened to them."},
    {"name": "clients", "description": "Manage the clients of this API, and get access tokens for them."},
    {"name": "audit", "description": "See who changed what, and when."},
    {"name": "overview", "description": "Get an overview of the server."},
    {"name": "monitoring", "description": "Ask whether the server runs."},
]

REFUSALS = {
    401: "The access token is missing, expired or revoked.",
    403: "The client does not have the scope that this needs.",
    404: "What the request names does not exist.",
    409: "The request conflicts with what exists: an id is taken, messages are pushed, filtered or published, or "
    "another request changed the same object at the same moment.",
    410: "A delivery is no longer held: nothing was settled or published.",
    429: "Too many requests were sent by hand, or a subscription with a `max_backlog` is full; see `Retry-After`.",
    413: "The body, or something in it, is larger than the server accepts.",
    415: "The body is not JSON, or it is compressed.",
    422: "The request is invalid; `errors` names the members and parameters.",
    503: "The server cannot do it now, and has stored nothing unless `detail` says otherwise; see `Retry-After`.",
}
CONFLICTS = (
    *("createTopic", "createSubscription", "pullMessages", "settleAndPull"),
    *("rotateClientSecret", "revokeClientSecret", "rotatePushSecret", "testPush", "resendMessage", "getPushStatus"),
    *("moveDelayedMessage", "cancelDelayedMessage"),
    *("createSchedule", "updateSchedule", "pauseSchedule", "resumeSchedule"),
)
TOO_MANY = ("testPush", "resendMessage", "publishMessages")
MISSING = ("createSubscription", "runTransaction", "getAuthorizationServer")
WITHOUT_DATABASE = ("listPublicKeys", "getAuthorizationServer", "liveness")

PARAMETERS: dict[str, tuple[str, Any]] = {
    "topic_id": ("the id of a topic", TOPIC),
    "subscription_id": ("the id of a subscription", SUBSCRIPTION),
    "message_id": ("the id of a message", EXAMPLE_ID),
    "client_id": ("the id of a client", EXAMPLE_ID),
    "consumer_id": ("a name for the consumer that you choose; it holds the messages", "consumer-1"),
    "offset": ("how many to skip at the beginning", 0),
    "limit": ("the highest number of items in the answer", 10),
    "redrive_id": ("the id of a redrive", 1),
    "delayed_id": ("the id of a delayed message, as the publish answered it", "delayed-1"),
    "schedule_id": ("the id of a schedule, which the topic has once", "daily-report"),
    "state": ("where the messages are", "ahead"),
    "include": ("`metrics` adds figures to each item", None),
    "q": ("only ids that contain this text, in any case", None),
    "page_token": ("`next_page_token` of the page before, instead of `offset`", None),
    "interval_seconds": ("the seconds of each figure: 5 for the last hour, 60 for the last day", None),
    "from": ("the beginning", None),
    "to": ("the end", None),
    "which": ("`old` is the previous secret, `new` is the latest one", "old"),
}
"""Descriptions, where there are none, and examples, which optional parameters without a default do not get."""

MEMBERS = {
    "id": "the id",
    "ids": "ids of messages, or of deliveries (`ack_id`)",
    "data": "the items of this page",
    "message_id": "the id of the message",
    "topic_id": "the id of the topic",
    "subscription_id": "the id of the subscription",
    "created_at": "when it was created; a message, when it was published",
    "updated_at": "when it was last changed",
    "died_at": "when the message became a dead letter",
    "lease_expires_at": "until when the consumer holds the message, by the clock of the database",
    "payload": "the JSON object that was published",
    "attributes": "names and values that were published beside the payload",
    "ordering_key": "ordered subscriptions keep the order of the messages that have the same one",
    "deliver_at": "when the message arrives: a time with its zone, up to a year ahead",
    "delay_seconds": "after how many seconds the message arrives, up to a year",
    "ttl_seconds": "how many seconds after it was published, or after its delay, the message expires",
    "expires_at": "when the message expires: it is not delivered any more",
    "delivery_attempts": "how often the message was delivered, including this time",
    "reason": "why the message is a dead letter",
    "filter": "only messages that match are delivered; null delivers all",
    "name": "a name for people to read",
    "scopes": "what the client may do, separated by spaces",
    "is_active": "whether the client may get tokens",
    "token_version": "increases when all tokens of the client end",
    "max_delivery_attempts": "deliveries until a message becomes a dead letter",
    "backoff_min_seconds": "seconds to wait after the first failed delivery; doubles with each further one",
    "backoff_max_seconds": "the longest wait after a failed delivery, in seconds",
    "backoff_jitter": "the part of each wait, from 0 to 1, that is left to chance; 0 or null is none",
    "ack_deadline_seconds": "seconds that a consumer has to settle a message",
    "max_in_flight": "messages that all consumers together may hold; 0 or null is no limit",
    "rate_limit": "messages a second that all consumers together get; 0 or null is no limit",
    "dead_letter_topic": "a topic that gets a copy of each dead letter; empty or null is none",
    "expire_after_seconds": "seconds without a pull after which the subscription is deleted; 0 or null is never",
    "max_backlog": "messages of the topic that may come after its cursor; 0 or null is no limit",
    "on_full": "what happens to more than `max_backlog`: `reject`, `drop_oldest` or `dead_letter`",
    "fair_by": (
        "`ordering_key` gives the ordering keys that wait equally many messages, `attributes.tenant` the values of "
        "that attribute; empty or null is nothing"
    ),
    "on_expired": "what becomes of a message that expires: `drop`, or `dead_letter`",
    "on_dead_letter": "what becomes of the ordering key of a dead letter: `continue`, or `hold` it",
    "retention_seconds": "seconds that settled messages are kept; null is the setting of the server",
    "schema": "JSON Schema that every payload must match; null for none",
    "start_from": "the first message: `latest` what is published from now on, `earliest` all that is kept, or a time",
    "fork_of": "a subscription with the settings for this one, which begins at the oldest message unsettled there",
    "state": "where the message is",
    "subscriptions": "one item for each subscription of the topic",
    "messages": "the messages to publish",
    "settled": "ids that are settled now",
    "before_is_estimated": "whether `before` is an estimate",
    "extend_seconds": "seconds from now until the new deadline",
    "settles": "what to settle, by subscription",
    "publishes": "what to publish, by topic",
    "acks": "the messages to acknowledge, or their outcomes",
    "nacks": "the messages to give back, or their outcomes",
    "rejects": "the messages to make dead letters, or their outcomes",
    "leases": "the messages whose deadlines to move, or their outcomes",
    "secret": "the secret of the client",
    "old_secret_expires_at": "when the previous secret ends; null when it has ended",
    "client_secret": "the secret of the client",
    "client_id": "the id of the client",
    "access_token": "send it as `Authorization: Bearer <token>`",
    "token_type": "how to send the token",
    "scope": "scopes, separated by spaces",
    "active": "whether the token is good",
    "sub": "the id of the client",
    "status": "what the probe found",
    "detail": "what is wrong, why, and what to do",
    "action": "`reprocess` gives the dead letters to consumers again, `purge` deletes them",
    "died_after": "only those that died at this time or later",
    "died_before": "only those that died before this time",
    "first_died_at": "when the first of them died",
    "last_died_at": "when the last of them died",
    "per_second": "how many to move a second; null is as many as the server can",
    "ended_at": "when it ended; null while it runs",
    "passes": "whether the payload passes; only with `payload`",
    "field": "the first field of the filter that keeps the message out",
    "expected": "the values that the filter takes there",
    "actual": "the value of the message there",
    "similar_field": "a field of the message whose name differs only in case",
    "looked_at": "messages that were judged",
    "passed": "how many of them pass",
    "passing": "up to five that pass",
    "filtered": "up to five that do not pass, and why",
    "ahead_now": "messages that are ahead of the subscription now",
    "ahead_after": "messages that would be ahead of it",
    "is_estimated": "whether these two numbers are estimates",
    "is_paused": "whether pulls are answered with nothing",
    "paused_at": "since when it is paused",
    "paused": "whether the subscription is paused",
    "next_page_token": "of the next page, when there is one",
    "keys": "the public keys",
    "error": "the code of RFC 6749",
    "error_description": "what is wrong, and what to do",
    "grant_type": "the only one that exists",
    "token": "the access token",
    "specversion": "the version of CloudEvents",
    "source": "where the event happened",
    "type": "the kind of event",
    "issuer": "the address of the server",
    "token_endpoint": "where to get access tokens",
    "introspection_endpoint": "where to ask whether a token is valid",
    "jwks_uri": "where the public keys are",
    "token_endpoint_auth_methods_supported": "how to send the secret there",
    "introspection_endpoint_auth_methods_supported": "how to send the secret there",
    "grant_types_supported": "the only one that exists",
    "scopes_supported": "all scopes, without those of single objects",
}
"""Descriptions of members that have none of their own."""

BODIES: dict[str, Any] = {
    "createTopic": {"id": TOPIC},
    "updateTopic": {"retention_seconds": 86400},
    "publishMessages": [{"event": "user.created", "user_id": "123", "country": "BR"}],
    "createSubscription": {"id": SUBSCRIPTION, "topic_id": TOPIC, "filter": {"country": ["BR", "US"]}},
    "updateSubscription": {"max_delivery_attempts": 10, "backoff_min_seconds": 5, "backoff_max_seconds": 300},
    "rotatePushSecret": {"old_secret_seconds": 86400},
    "testPush": {"payload": {"event": "user.created", "user_id": "123"}},
    "resendMessage": {"message_id": EXAMPLE_ID},
    "seekSubscription": {"to": "earliest"},
    "testFilterOfTopic": {"filter": {"country": ["BR"]}, "payload": {"country": "br"}},
    "testFilterOfSubscription": {"filter": {"country": ["BR"]}, "last": 100},
    "runTransaction": {
        "settles": [{"subscription_id": SUBSCRIPTION, "acks": [f"{EXAMPLE_ID}.5f0c1d9ae2b34c77"]}],
        "publishes": [{"topic_id": TOPIC, "messages": [{"payload": {"event": "user.welcomed", "user_id": "123"}}]}],
    },
    "settleAndPull": {"acks": [EXAMPLE_ID]},
    "ackMessages": [EXAMPLE_ID],
    "nackMessages": [EXAMPLE_ID],
    "rejectMessages": {"ids": [EXAMPLE_ID], "reason": "the order does not exist"},
    "extendLeases": {"ids": [EXAMPLE_ID], "extend_seconds": 60},
    "purgeDeadLetters": [EXAMPLE_ID],
    "reprocessDeadLetters": [EXAMPLE_ID],
    "moveDelayedMessage": {"delay_seconds": 3600},
    "publishRefusedMessages": ["refused-1"],
    "purgeRefusedMessages": ["refused-1"],
    "createSchedule": {
        "id": "daily-report",
        "cron": "0 9 * * MON-FRI",
        "time_zone": "Europe/Berlin",
        "payload": {"days": 1},
    },
    "updateSchedule": {"interval_seconds": 3600},
    "createRedrive": {"action": "reprocess", "per_second": 100},
    "createClient": {"name": "My Application", "scopes": "topics:read topics:publish:user-events"},
    "updateClient": {"name": "My Application", "scopes": "topics:read", "is_active": True},
    "rotateClientSecret": {"old_secret_seconds": 86400},
    "createToken": {"client_id": EXAMPLE_ID, "client_secret": "fps_x3Yb0dQm1nT8vKcE5rWzLh7uJpAs2GfM"},
}
"""Examples of JSON bodies, by the id of the operation. They name the same objects, so that they work in turn."""


def describe(app: FastAPI) -> None:
    make = app.openapi

    def openapi() -> dict[str, Any]:
        is_new = app.openapi_schema is None
        document = make()
        if is_new:
            complete(document, app.state.settings)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def complete(document: dict[str, Any], settings: Settings) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = deepcopy(DOCUMENTED["default"]["content"][MEDIA_TYPE]["schema"])
    # The address is relative, so it follows the root path.
    flow = {"tokenUrl": "oauth/token", "scopes": SCOPES}
    document["components"]["securitySchemes"] = {SCHEME: {"type": "oauth2", "flows": {"clientCredentials": flow}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _describe_parameters(operation)
            _describe_body(operation)
            _describe_answers(path, operation)
    _show_settings(schemas, settings)
    for schema in _objects(document):
        for name, member in schema["properties"].items():
            if name in MEMBERS:
                member.setdefault("description", MEMBERS[name])


def _describe_parameters(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        description, example = PARAMETERS.get(parameter["name"], (None, None))
        if description:
            parameter.setdefault("description", description)
        if example is not None and (parameter.get("required") or "default" in parameter["schema"]):
            parameter.setdefault("example", example)


def _describe_body(operation: dict[str, Any]) -> None:
    example = BODIES.get(operation["operationId"])
    if example is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = example


def _describe_answers(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for status in _refusals(path, operation):
        content = {MEDIA_TYPE: {"schema": PROBLEM}}
        responses.setdefault(str(status), {"description": REFUSALS[status], "content": content})
    for response in responses.values():
        if MEDIA_TYPE in response.get("content", ()):
            response["content"] = response["content"] | {MEDIA_TYPE: {"schema": PROBLEM}}
    # A reader looks for the status that came; what fits none is last.
    rest = responses.pop("default")
    operation["responses"] = dict(sorted(responses.items())) | {"default": rest}


def _refusals(path: str, operation: dict[str, Any]) -> Iterator[int]:
    name = operation["operationId"]
    if "security" in operation:
        yield from (401, 403)
    if "_id}" in path or name in MISSING:
        yield 404
    if name in CONFLICTS:
        yield 409
    if name == "runTransaction":
        yield 410
    if "requestBody" in operation:
        yield from (413, 415)
    yield 422
    if name in TOO_MANY:
        yield 429
    if name not in WITHOUT_DATABASE:
        yield 503


def _show_settings(schemas: dict[str, Any], settings: Settings) -> None:
    """What a subscription gets for a setting that is left out."""
    properties = schemas["NewSubscription"]["properties"]
    properties["max_delivery_attempts"]["default"] = settings.subscription_max_attempts
    properties["backoff_min_seconds"]["default"] = settings.subscription_backoff_min_seconds
    properties["backoff_max_seconds"]["default"] = settings.subscription_backoff_max_seconds
    properties["ack_deadline_seconds"]["default"] = settings.cleanup_stuck_messages_lock_timeout_seconds


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Returns all schemas of objects, wherever they stand."""
    if isinstance(value, dict):
        if isinstance(value.get("properties"), dict):
            yield value
        for one in value.values():
            yield from _objects(one)
    elif isinstance(value, list):
        for one in value:
            yield from _objects(one)
