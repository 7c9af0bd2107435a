"""What is answered: messages as JSON, joined from the bytes that PostgreSQL stored, or nothing."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from starlette.responses import Response

from fastpubsub.message_ids import MessageIds, ack_id
from fastpubsub.services.dead_letters import Letter
from fastpubsub.services.messages import Claim
from fastpubsub.services.tails import Logged

NO_CONTENT = Response(status_code=204)


def claim_json(claim: Claim, subscription_id: str) -> bytes:
    parts: list[bytes] = []
    ids = None
    created_at = created = None
    subscription = f'","subscription_id":"{subscription_id}","payload":'
    expires_at = "" if claim.expires_at is None else _time(claim.expires_at)
    for position, attempts, time, payload, attributes in zip(
        claim.positions, claim.attempts, claim.created_at, claim.payloads, claim.attributes, strict=True
    ):
        if ids is None or time != created_at:
            created_at, created = time, _time(time)
            ids = MessageIds(claim.keys.topic_key, time)
        message_id = ids.at(position)
        parts += (
            f'{{"id":"{message_id}{subscription}'.encode(),
            payload,
            f',"delivery_attempts":{attempts},"created_at":"{created}",'
            f'"ack_id":"{ack_id(message_id, claim.token)}","lease_expires_at":"{expires_at}"'.encode(),
        )
        if attributes is not None:
            parts += (b',"attributes":', attributes)
        parts.append(b"},")
    return _data(parts)


def delivery_json(claim: Claim, subscription_id: str) -> Iterator[tuple[str, bytes]]:
    """For streams: the messages one by one, each with its id."""
    expires_at = "" if claim.expires_at is None else _time(claim.expires_at)
    for position, attempts, time, payload, attributes in zip(
        claim.positions, claim.attempts, claim.created_at, claim.payloads, claim.attributes, strict=True
    ):
        message_id = MessageIds(claim.keys.topic_key, time).at(position)
        yield (
            message_id,
            b'{"id":"%b","subscription_id":"%b","payload":%b,"delivery_attempts":%d,"created_at":"%b","ack_id":"%b",'
            b'"lease_expires_at":"%b"%b}'
            % (
                message_id.encode(),
                subscription_id.encode(),
                payload,
                attempts,
                _time(time).encode(),
                ack_id(message_id, claim.token).encode(),
                expires_at.encode(),
                b"" if attributes is None else b',"attributes":' + attributes,
            ),
        )


def logged_json(message: Logged) -> tuple[str, bytes]:
    """A message as its topic has it, without a delivery, and its id."""
    message_id = MessageIds(message.topic_key, message.created_at).at(message.position)
    attributes = b"" if message.attributes is None else b',"attributes":' + message.attributes
    head = f'{{"id":"{message_id}","payload":'.encode()
    return message_id, b'%b%b,"created_at":"%b"%b}' % (
        head,
        message.payload,
        _time(message.created_at).encode(),
        attributes,
    )


def dead_letters_json(letters: Sequence[Letter], subscription_id: str) -> bytes:
    parts: list[bytes] = []
    for letter in letters:
        parts += (
            f'{{"id":"{letter.id}","subscription_id":"{subscription_id}","payload":'.encode(),
            letter.payload,
            f',"delivery_attempts":{letter.attempts},"created_at":"{_time(letter.created_at)}",'
            f'"reason":{json.dumps(letter.reason)},"died_at":"{_time(letter.died_at)}"'.encode(),
        )
        if letter.attributes is not None:
            parts += (b',"attributes":', letter.attributes)
        parts.append(b"},")
    return _data(parts)


def _data(parts: list[bytes]) -> bytes:
    if parts:
        parts[-1] = b"}"
    return b'{"data":[' + b"".join(parts) + b"]}"


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
