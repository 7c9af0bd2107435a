"""The answer to "what became of this message?", in words and as members."""

import json

from fastpubsub.api.render import json_object, time_text
from fastpubsub.filters import ALTERNATIVES, ATTRIBUTES, MESSAGE, is_about_message, read
from fastpubsub.services.explaining import Explained, FoundMessage
from fastpubsub.services.previews import Decision
from fastpubsub.services.subscriptions import rate_text

Members = dict[str, bytes | str | float | None]

SENTENCES = {
    "leased": "consumer {consumer_id} got delivery {attempts} at {leased_at}, and has until {until} to settle it",
    "dead": "it became a dead letter at {died_at}, after {deliveries}: {reason}",
    "settled": "it was acknowledged, or purged as a dead letter",
    "skipped": "the seek at {sought_at} moved the subscription past it",
    "purged": "the purge at {sought_at} settled it before any consumer had it",
    "before_subscription": "it was published before the position at which the subscription began",
    "trimmed": "the topic no longer has it, so nothing tells whether it was acknowledged or filtered out",
    "unknown": "the filter has changed 100 times since, so nothing tells whether it was acknowledged or filtered out",
}
WAITING = {
    "nacked": "a consumer nacked delivery {attempts}{said}, and the next one is due at {until}",
    "lease expired": "the ack deadline of delivery {attempts} passed, and the next one is due at {until}",
    "returned": "a delivery was given back before it was looked at, and does not count; the next one is due at {until}",
    "reprocessed": "it was a dead letter and was reprocessed, and the next delivery is due at {until}",
}
"""By reason."""

SETTLED_BEFORE_SEEK = (
    "it was acknowledged, or a seek or purge at {sought_at} ended its delivery; the two cannot be told apart"
)
SETTLED_OR_EXPIRED = "it was acknowledged, or it expired at {expired_at} before it was; the two cannot be told apart"
SETTLED_OR_DROPPED = "it was acknowledged, or dropped because the backlog was too long; the two cannot be told apart"
EXPIRED = "it expired at {expired_at}, and the next claim that comes to it passes it; "
PUT_ASIDE = "no consumer has had it yet: it waits for the turn of its ordering key"
SHARED = (
    "no consumer has had it yet: of its {key} others came before it, and the subscription gives equally many "
    "messages to each that waits"
)
HELD = (
    "no consumer has had it yet: its ordering key is held by the dead letter {held_by}, "
    "until somebody reprocesses or purges that"
)
HOLDS = "; it holds its ordering key until it is reprocessed or purged"
AT_LIMIT = "consumers hold as many messages as the limit of {at_limit} lets them; "
AT_RATE_LIMIT = "consumers get messages as fast as the limit of {at_rate_limit} a second lets them; "
PAUSED = "the subscription has been paused since {paused_at}, and hands out nothing; "


def explanation_json(explained: Explained, message_id: str, *, shows_payload: bool) -> bytes:
    """Without `messages:read`, nothing that the payload says."""
    times = _times(explained)
    members: Members = {
        "message_id": message_id,
        "subscription_id": explained.subscription_id,
        "state": explained.state,
        "detail": _detail(explained, shows_payload=shows_payload),
        "before": explained.before,
        "before_is_estimated": explained.before_is_estimated,
        "delivery_attempts": explained.attempts,
        "consumer_id": explained.consumer_id,
        "leased_at": times.get("leased_at"),
        "lease_expires_at": times.get("until") if explained.state == "leased" else None,
        "due_at": times.get("until") if explained.state == "waiting" else None,
        "died_at": times.get("died_at"),
        "reason": None if explained.is_put_aside else explained.reason,
        "filter": explained.filter,
        "field": explained.field,
        "expected": explained.expected,
        "actual": explained.actual if shows_payload else None,
        "similar_field": explained.similar_field if shows_payload else None,
        "sought_at": times.get("sought_at"),
        "paused_at": times.get("paused_at"),
        "at_limit": explained.at_limit,
        "at_rate_limit": explained.at_rate_limit,
        "failures": explained.failures,
        "expired_at": times.get("expired_at"),
        "held_by": explained.held_by,
    }
    return json_object({name: value for name, value in members.items() if value is not None})


def message_json(found: FoundMessage, message_id: str, explanations: list[bytes], *, shows_payload: bool) -> bytes:
    members: Members = {"id": message_id, "topic_id": found.topic_id, "created_at": time_text(found.created_at)}
    if shows_payload:
        members |= {"payload": found.payload, "attributes": found.attributes, "ordering_key": found.ordering_key}
    if found.expires_at is not None:
        members["expires_at"] = time_text(found.expires_at)
    members["subscriptions"] = b"[" + b",".join(explanations) + b"]"
    return json_object({name: value for name, value in members.items() if value is not None})


def _detail(explained: Explained, *, shows_payload: bool) -> str:
    paused = "" if explained.paused_at is None else PAUSED.format(paused_at=time_text(explained.paused_at))
    limited = "" if explained.at_limit is None else AT_LIMIT.format(at_limit=explained.at_limit)
    if explained.at_rate_limit is not None:
        limited += AT_RATE_LIMIT.format(at_rate_limit=rate_text(explained.at_rate_limit))
    is_over = explained.expired_at is not None and explained.state in ("ahead", "waiting")
    expired = EXPIRED.format(**_times(explained)) if is_over else ""
    return paused + limited + expired + _sentence(explained, shows_payload=shows_payload)


def _put_aside(explained: Explained) -> str:
    if explained.held_by is not None:
        return HELD.format(held_by=explained.held_by)
    if explained.reason is None:
        return PUT_ASIDE
    _, _, attribute = explained.reason.partition("attributes.")
    return SHARED.format(key=f"attribute {attribute}" if attribute else "ordering key")


def _sentence(explained: Explained, *, shows_payload: bool) -> str:
    if explained.is_put_aside:
        return _put_aside(explained)
    if explained.state == "ahead":
        return _ahead(explained)
    if explained.state == "filtered":
        return _filtered(explained, shows_payload=shows_payload)
    cause, _, said = (explained.reason or "").partition(": ")
    sentence = WAITING[cause] if explained.state == "waiting" else SENTENCES[explained.state]
    if explained.state == "settled" and explained.sought_at is not None:
        sentence = SETTLED_BEFORE_SEEK
    elif explained.state == "settled" and explained.expired_at is not None:
        sentence = SETTLED_OR_EXPIRED
    elif explained.state == "settled" and explained.may_be_dropped:
        sentence = SETTLED_OR_DROPPED
    if explained.state == "dead" and explained.held_by is not None:
        sentence += HOLDS
    return sentence.format(
        attempts=explained.attempts,
        deliveries="1 delivery" if explained.attempts == 1 else f"{explained.attempts} deliveries",
        consumer_id=json.dumps(explained.consumer_id),
        reason=explained.reason,
        said=f" ({said})" if said else "",
        **_times(explained),
    )


def decision_members(decision: Decision, *, shows_payload: bool) -> Members:
    """Why a filter keeps a payload out."""
    members: Members = {
        "field": decision.field,
        "expected": decision.expected,
        "actual": decision.actual if shows_payload else None,
        "similar_field": decision.similar_field if shows_payload else None,
        "detail": _filtered(decision, shows_payload=shows_payload),
    }
    return {name: value for name, value in members.items() if value is not None}


def _times(explained: Explained) -> dict[str, str]:
    names = ("until", "died_at", "sought_at", "paused_at", "leased_at", "expired_at")
    times = {name: getattr(explained, name) for name in names}
    return {name: time_text(time) for name, time in times.items() if time is not None}


def _ahead(explained: Explained) -> str:
    about = "about " if explained.before_is_estimated else ""
    if explained.before or about:
        messages = "other message comes" if explained.before == 1 else "other messages come"
        return f"no consumer has had it yet: {about}{explained.before} {messages} before it"
    return "no consumer has had it yet: it is the next message of the log"


def _filtered(explained: Explained | Decision, *, shows_payload: bool) -> str:
    if not explained.is_readable:
        return "the filter keeps it out, because PostgreSQL cannot read its payload as jsonb"
    expected = (explained.expected or b"").lstrip()
    if explained.field == ATTRIBUTES and expected.startswith(b"{"):
        return _filtered_by_attributes(explained.actual if shows_payload else None)
    if explained.field == ALTERNATIVES and expected[1:].lstrip().startswith(b"{"):
        return f'the filter keeps it out: it passes none of the alternatives of "{ALTERNATIVES}"'
    if explained.field == MESSAGE and expected.startswith(b"[") and any(map(is_about_message, read(expected))):
        return _filtered_by_key(explained.actual if shows_payload else None)
    field = json.dumps(explained.field)
    sentence = f"the filter keeps it out: its field {field} is none of the values that the filter takes"
    if not shows_payload:
        return sentence
    if explained.actual is not None:
        return f"{sentence}; it is {explained.actual.decode()}"
    if explained.actual_bytes is not None:
        return f"{sentence}; it has {explained.actual_bytes} bytes"
    sentence = f"the filter keeps it out: it has no field {field}"
    return (
        sentence if explained.similar_field is None else f"{sentence}, but it has {json.dumps(explained.similar_field)}"
    )


def _filtered_by_key(actual: bytes | None) -> str:
    sentence = "the filter keeps it out: its ordering key is not one that the filter takes"
    return sentence if actual is None else f"{sentence}; it has {actual.decode()}"


def _filtered_by_attributes(actual: bytes | None) -> str:
    sentence = "the filter keeps it out: its attributes are not those that the filter takes"
    return sentence if actual is None else f"{sentence}; they are {actual.decode()}"
