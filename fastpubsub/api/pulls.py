"""What the routes that lease messages share: what is asked for, waiting, and answers."""

import time
from collections.abc import Sequence
from typing import NamedTuple, Self, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from fastpubsub.api.cloud_events import events_json
from fastpubsub.api.errors import MAX_ERRORS
from fastpubsub.api.leaving import cancelled_by_leaving
from fastpubsub.api.render import claim_json, sort_ids
from fastpubsub.api.requests import MAX_CONSUMER_ID, int_parameter, text_parameter, wait_seconds, wants_events
from fastpubsub.api.security import lasting_token
from fastpubsub.cloudevents import BATCH
from fastpubsub.exceptions import TooLarge
from fastpubsub.json_text import check_object
from fastpubsub.message_ids import ACK_ID_CHARACTERS
from fastpubsub.models import Settled, Settles
from fastpubsub.services.authenticator import SLOW_SECONDS
from fastpubsub.services.claiming import Claim
from fastpubsub.services.exchanging import Part
from fastpubsub.services.settling import ACK, EXTEND, NACK, REJECT, RETURN

Model = TypeVar("Model", bound=BaseModel)

MAX_BATCH = 100
DEFAULT_BATCH = 10
_ONLY_ACKS, _BETWEEN, _END = b'{"acks":["', b'","', b'"]}'
_OF_IDS = b"0123456789abcdef-."


class Asked(NamedTuple):
    """What a pull asks for."""

    subscription_id: str
    consumer_id: str
    limit: int
    seconds: int

    @classmethod
    def by(cls, request: Request) -> Self:
        return cls(
            request.path_params["subscription_id"],
            text_parameter(request, "consumer_id", MAX_CONSUMER_ID),
            int_parameter(request, "batch_size", DEFAULT_BATCH, 1, MAX_BATCH) or DEFAULT_BATCH,
            wait_seconds(request),
        )


async def pull(request: Request, asked: Asked, *, is_all_taken: bool = False) -> Claim:
    claiming = request.app.state.claiming
    started = time.monotonic()
    claim: Claim
    if asked.seconds:
        async with cancelled_by_leaving(request):
            claim = await claiming.pull(
                asked.subscription_id, asked.limit, asked.consumer_id, asked.seconds, is_all_taken=is_all_taken
            )
            await _look_again(request, claim)
    else:
        claim = await claiming.pull(asked.subscription_id, asked.limit, asked.consumer_id)
        await check_slow(request, claim, started)
    return claim


async def check_slow(request: Request, claim: Claim, started: float) -> None:
    if time.monotonic() - started > SLOW_SECONDS:
        await _look_again(request, claim)
        if await request.is_disconnected():
            request.app.state.claiming.give_back(claim)


def messages(request: Request, claim: Claim) -> Response:
    subscription_id = request.path_params["subscription_id"]
    if wants_events(request):
        return Response(events_json(claim, subscription_id), media_type=BATCH)
    return Response(claim_json(claim, subscription_id), media_type="application/json")


def read_body(model: type[Model], body: bytes) -> Model:
    """For routes that FastAPI hands no body."""
    check_object(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)[:MAX_ERRORS]
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in errors]) from None


def parts_of(request: Request, body: bytes) -> list[Part]:
    """Each with the ids of at least one member of the body."""
    if (acks := only_acks(body)) is not None:
        return _bounded(request, [Part("acks", ACK, acks)])
    settles = read_body(Settles, body)
    parts = [Part("acks", ACK, settles.acks)]
    for index, nack in enumerate(settles.nacks):
        kind = RETURN if nack.undelivered else NACK
        parts.append(Part(f"nacks.{index}", kind, nack.ids, nack.delay_seconds, nack.reason))
    parts += (Part(f"rejects.{n}", REJECT, one.ids, one.reason) for n, one in enumerate(settles.rejects))
    parts += (Part(f"leases.{n}", EXTEND, one.ids, one.extend_seconds) for n, one in enumerate(settles.leases))
    return _bounded(request, parts)


def only_acks(body: bytes) -> list[str] | None:
    """The ids of `{"acks":["…","…"]}`, when each has the length of an ack id and what it is written in: most bodies.

    Of these characters nothing but a list of so many strings can be made, so the body needs no other check.
    """
    if not (body.startswith(_ONLY_ACKS) and body.endswith(_END)):
        return None
    ids = body[len(_ONLY_ACKS) : -len(_END)]
    count, rest = divmod(len(ids) + len(_BETWEEN), ACK_ID_CHARACTERS + len(_BETWEEN))
    if rest or ids.translate(None, _OF_IDS) != _BETWEEN * (count - 1):
        return None
    listed = ids.decode("ascii").split(_BETWEEN.decode("ascii"))
    return listed if set(map(len, listed)) == {ACK_ID_CHARACTERS} else None


def _bounded(request: Request, parts: list[Part]) -> list[Part]:
    limit = request.app.state.settings.settle_max_ids
    if sum(len(part.ids) for part in parts) > limit:
        raise TooLarge(f"the body has more ids than the {limit} of one request; send several")
    return parts


def exchanged_json(
    parts: Sequence[Part], outcomes: Sequence[Sequence[int]], claim: Claim, subscription_id: str
) -> bytes:
    members = {name: Settled(settled=[], gone=[], stale=[]) for name in Settles.model_fields}
    for part, outcome in zip(parts, outcomes, strict=True):
        sort_ids(part.ids, outcome, members[part.name.partition(".")[0]])
    sorted_ = b"".join(b',"%b":%b' % (name.encode(), one.model_dump_json().encode()) for name, one in members.items())
    return claim_json(claim, subscription_id)[:-1] + sorted_ + b"}"


async def _look_again(request: Request, claim: Claim) -> None:
    """Gives back what the consumer does not get, because it has lost its access or has gone."""
    state = request.app.state
    try:
        await state.authenticator.look_again(lasting_token(request))
    except BaseException:
        state.claiming.give_back(claim)
        raise
