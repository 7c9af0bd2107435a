"""Everything that stands for a message, or for a place in a topic."""

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeAlias

from pydantic import BaseModel

from fastpubsub.client.requests.request import only_given
from fastpubsub.models import DeadLetter, Message, SeenMessage

Id: TypeAlias = str | uuid.UUID | Message | DeadLetter

Ids: TypeAlias = Id | Iterable[Id]
"""One or more. A pulled message stands for its `ack_id`, which settles nothing when another has the message by now."""

Place: TypeAlias = int | datetime | str | uuid.UUID | Message | DeadLetter | SeenMessage
"""A position of a topic, a time with its zone, or a message or its id."""


def place_params(name: str, place: Place | None) -> dict[str, Any]:
    if isinstance(place, BaseModel):
        place = place.id
    return only_given(**{name: place.isoformat() if isinstance(place, datetime) else place})


def list_ids(ids: Ids) -> list[str]:
    several = [ids] if isinstance(ids, str | uuid.UUID | Message | DeadLetter) else ids
    return [one if type(one) is str else _id(one) for one in several]


def _id(one: Id) -> str:
    if isinstance(one, Message):
        return one.ack_id
    return str(one.id) if isinstance(one, DeadLetter) else str(one)


def message_id_of(one: Id) -> str:
    """Also of an ack_id, which begins with it."""
    return str(one if isinstance(one, str | uuid.UUID) else one.id).partition(".")[0]


def are_ack_ids(ids: Iterable[str]) -> bool:
    """An ack id is of one delivery, which cannot be settled twice; a bare message id might meet the next delivery."""
    return all("." in one for one in ids)
