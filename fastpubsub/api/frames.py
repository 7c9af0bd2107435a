"""Frames of a WebSocket: JSON objects with a `type`."""

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, TypeAdapter, ValidationError

from fastpubsub.api.render import delivery_json
from fastpubsub.exceptions import FastpubsubError, InvalidRequest, TooLarge
from fastpubsub.json_text import check_object
from fastpubsub.models import (
    UNDELIVERED_AND_DELAYED,
    UNDELIVERED_WITH_REASON,
    AckFrame,
    ExtendFrame,
    NackFrame,
    RejectFrame,
    sentence,
)
from fastpubsub.services.claiming import Claim
from fastpubsub.services.settling import (
    ACK,
    EXTEND,
    GONE,
    NACK,
    REJECT,
    RETURN,
    SETTLED,
    STALE,
    Settling,
)

Frame = AckFrame | NackFrame | RejectFrame | ExtendFrame

_adapter: TypeAdapter[Frame] = TypeAdapter(Annotated[Frame, Discriminator("type")])
_OUTCOMES = {SETTLED: "settled", GONE: "gone", STALE: "stale"}


def message_frames(claim: Claim, subscription_id: str) -> Iterator[str]:
    for _, message in delivery_json(claim, subscription_id):
        yield f'{{"type":"message",{message[1:].decode()}'


def end_frame(reason: str) -> str:
    return json.dumps({"type": "end", "reason": reason})


class FrameSettler:
    """Does what the frames of one consumer say, and has an answer for each."""

    def __init__(
        self, settling: Settling, subscription_id: str, max_ids: int, look_again: Callable[[], Awaitable[None]]
    ) -> None:
        self._settling = settling
        self._subscription_id = subscription_id
        self._max_ids = max_ids
        self._look_again = look_again

    async def answer(self, text: str | None) -> str | None:
        """Returns None when the frame asked for no answer and did not fail."""
        reference = None
        try:
            frame = _parse(text)
            reference = frame.ref
            await self._look_again()
            if len(frame.ids) > self._max_ids:
                raise TooLarge(f"the frame has more ids than the {self._max_ids} of one frame; send several")
            outcomes = await self._settle(frame)
        except FastpubsubError as error:
            return _frame("error", reference, status=error.status, detail=error.detail)
        if reference is None:
            return None
        lists: dict[str, list[str]] = {name: [] for name in _OUTCOMES.values()}
        for id_, outcome in zip(frame.ids, outcomes, strict=True):
            lists[_OUTCOMES[outcome]].append(id_)
        return _frame("settled", reference, **lists)

    async def _settle(self, frame: Frame) -> Sequence[int]:
        match frame:
            case AckFrame():
                return await self._settling.settle(ACK, self._subscription_id, frame.ids)
            case NackFrame(undelivered=True):
                if frame.delay_seconds is not None:
                    raise InvalidRequest(UNDELIVERED_AND_DELAYED)
                if frame.reason is not None:
                    raise InvalidRequest(UNDELIVERED_WITH_REASON)
                return await self._settling.settle(RETURN, self._subscription_id, frame.ids)
            case NackFrame():
                return await self._settling.settle(
                    NACK, self._subscription_id, frame.ids, frame.delay_seconds, frame.reason
                )
            case RejectFrame():
                return await self._settling.settle(REJECT, self._subscription_id, frame.ids, frame.reason)
            case ExtendFrame():
                return await self._settling.settle(EXTEND, self._subscription_id, frame.ids, frame.extend_seconds)


def _parse(text: str | None) -> Frame:
    if text is None:
        raise InvalidRequest("frames are text, not binary")
    try:
        body = text.encode()
        check_object(body)
        return _adapter.validate_json(body)
    except UnicodeEncodeError:
        raise InvalidRequest("the frame has half a surrogate pair") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the frame"
        raise InvalidRequest(f"{where[:200]}: {sentence(first)[:200]}") from None


def _frame(kind: str, reference: str | None, **members: Any) -> str:
    named = {"type": kind} | ({} if reference is None else {"ref": reference})
    return json.dumps(named | members)
