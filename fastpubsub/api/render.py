"""Messages as JSON, joined from the bytes that PostgreSQL stored."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from fastpubsub.message_ids import MessageIds, ack_id
from fastpubsub.services.dead_letters import Letter
from fastpubsub.services.messages import Claim


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
