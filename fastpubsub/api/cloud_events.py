"""CloudEvents in and out; the ordinary path knows nothing of them."""

import json
from datetime import UTC, datetime

from fastapi import Request

from fastpubsub.api.bodies import CLOUDEVENTS, media_type
from fastpubsub.cloudevents import context_of, parse_binary_event, parse_events
from fastpubsub.message_ids import MessageIds, ack_id
from fastpubsub.payloads import Batch
from fastpubsub.services.claiming import Claim


def parse_published(request: Request, body: bytes) -> Batch:
    settings = request.app.state.settings
    max_depth = settings.payload_max_depth
    sent = media_type(request)
    if sent.startswith(CLOUDEVENTS):
        return parse_events(body, sent, max_messages=settings.publish_max_messages, max_depth=max_depth)
    return parse_binary_event(body, request.scope["headers"], max_depth=max_depth)


def events_json(claim: Claim, subscription_id: str) -> bytes:
    """A batch of events, each with what a consumer needs to settle it as extensions."""
    expires_at = "" if claim.expires_at is None else _time(claim.expires_at)
    keys = claim.ordering_keys or [None] * len(claim.positions)
    events = []
    for position, attempts, time, payload, attributes, key in zip(
        claim.positions, claim.attempts, claim.created_at, claim.payloads, claim.attributes, keys, strict=True
    ):
        message_id, created_at = MessageIds(claim.keys.topic_key, time).at(position), _time(time)
        context = context_of(attributes, key, message_id, subscription_id, created_at) | {
            "messageid": message_id,
            "subscriptionid": subscription_id,
            "ackid": ack_id(message_id, claim.token),
            "deliveryattempts": attempts,
            "leaseexpiresat": expires_at,
            "publishedat": created_at,
        }
        events.append(json.dumps(context, ensure_ascii=False)[:-1].encode() + b', "data": ' + payload + b"}")
    return b"[" + b",".join(events) + b"]"


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
