"""Renders what was looked at without taking it."""

from fastpubsub.api.render import json_object, list_json, time_text
from fastpubsub.models import BrowsedState
from fastpubsub.searches import Place
from fastpubsub.services.browsing import Browsed, Seen

Members = dict[str, bytes | str | int | None]

NOTED = {
    "ahead": (None, None),
    "leased": ("lease_expires_at", "consumer_id"),
    "waiting": ("due_at", "reason"),
    "dead": ("died_at", "reason"),
}
"""What the time and the note of a message are, by its state."""


def browsed_topic_json(browsed: Browsed, *, backwards: bool) -> bytes:
    """`next` is a value for `from`, `previous` one for `before`."""
    end = None if browsed.next is None else browsed.next.position
    if backwards:
        previous, following = None if end is None else end + 1, browsed.other_side
    else:
        previous, following = browsed.other_side, end
    data = list_json(_given(_members(seen)) for seen in browsed.seen)
    return (
        data[:-1]
        + b","
        + json_object({"looked_at": browsed.looked_at, "next": following, "previous": previous}).removeprefix(b"{")
    )


def browsed_messages_json(browsed: Browsed, state: BrowsedState) -> bytes:
    data = list_json(_given(_of_subscription(seen, state)) for seen in browsed.seen)
    return (
        data[:-1] + b"," + json_object({"looked_at": browsed.looked_at, "next": _next(browsed.next)}).removeprefix(b"{")
    )


def _next(place: Place | None) -> str | int | None:
    if place is None or place.time is None:
        return None if place is None else place.position
    return f"{time_text(place.time)}/{place.position}"


def _members(seen: Seen) -> Members:
    return {
        "id": seen.id,
        "position": seen.position,
        "created_at": time_text(seen.created_at),
        "payload": seen.payload,
        "attributes": seen.attributes,
        "ordering_key": seen.ordering_key,
        "expires_at": None if seen.expires_at is None else time_text(seen.expires_at),
    }


def _of_subscription(seen: Seen, state: BrowsedState) -> Members:
    at, note = NOTED[state]
    members: Members = {"state": state, "delivery_attempts": seen.attempts}
    if at is not None and seen.at is not None:
        members[at] = time_text(seen.at)
    if note is not None:
        members[note] = seen.note
    if seen.since is not None:
        members["leased_at"] = time_text(seen.since)
    members["failures"] = seen.failures
    return _members(seen) | members


def _given(members: Members) -> bytes:
    return json_object({name: value for name, value in members.items() if value is not None})
