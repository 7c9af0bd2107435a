"""`/transactions`: settling and publishing together."""

from collections.abc import Iterator

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from fastpubsub.api import bodies, openapi
from fastpubsub.api.errors import MAX_ERRORS
from fastpubsub.api.render import NO_CONTENT
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.config import Settings
from fastpubsub.exceptions import InvalidRequest, TooLarge
from fastpubsub.models import TransactionSettles
from fastpubsub.payloads import RawTransaction, parse_batch, parse_transaction
from fastpubsub.services.settling import ACK, NACK, REJECT
from fastpubsub.services.transactions import Publication, Settlement

router = APIRouter(prefix="/transactions", tags=["messages"], route_class=ScopedRoute)

SETTLES = TypeAdapter(list[TransactionSettles])


@router.post(
    "",
    status_code=204,
    response_class=Response,
    openapi_extra=openapi.TRANSACTION,
    dependencies=[requires("subscriptions:consume", limit=bodies.messages)],
)
async def run_transaction(request: Request) -> Response:
    """Settle deliveries and publish messages: all of it, or nothing if a delivery is no longer held."""
    settings, caller = request.app.state.settings, request.state.caller
    body = parse_transaction(await request.body())
    settlements = list(_settlements(_settles(body.settles)))
    for settlement in settlements:
        caller.require("subscriptions:consume", settlement.subscription_id)
    for publish in body.publishes:
        caller.require("topics:publish", publish.topic_id)
    _check_counts(settings, settlements)
    await request.app.state.transactions.run(settlements, _publications(settings, body))
    return NO_CONTENT


def _settles(raw: msgspec.Raw) -> list[TransactionSettles]:
    try:
        return SETTLES.validate_json(bytes(raw))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)[:MAX_ERRORS]
        raise RequestValidationError([one | {"loc": ("body", "settles", *one["loc"])} for one in errors]) from None


def _settlements(settles: list[TransactionSettles]) -> Iterator[Settlement]:
    for one in settles:
        if one.acks:
            yield Settlement(one.subscription_id, ACK, one.acks)
        for nack in one.nacks:
            yield Settlement(one.subscription_id, NACK, nack.ids, delay_seconds=nack.delay_seconds, reason=nack.reason)
        for reject in one.rejects:
            yield Settlement(one.subscription_id, REJECT, reject.ids, reason=reject.reason)


def _check_counts(settings: Settings, settlements: list[Settlement]) -> None:
    ids = sum(len(one.ack_ids) for one in settlements)
    if not ids or not all(one.ack_ids for one in settlements):
        raise InvalidRequest("a transaction settles at least one delivery; without any, publish to the topics")
    if ids > settings.settle_max_ids:
        raise TooLarge(f"the body has more ids than the {settings.settle_max_ids} of one request; send several")


def _publications(settings: Settings, body: RawTransaction) -> list[Publication]:
    limits = {"max_messages": settings.publish_max_messages, "max_depth": settings.payload_max_depth}
    found = [
        Publication(one.topic_id, parse_batch(b'{"messages":%b}' % bytes(one.messages), **limits))
        for one in body.publishes
    ]
    if sum(len(one.batch.payloads) for one in found) > settings.publish_max_messages:
        raise TooLarge(
            f"the body has more messages than the {settings.publish_max_messages} of one request; send several"
        )
    return found
