"""What is answered: messages as JSON, joined from the bytes that PostgreSQL stored, or nothing."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from starlette.responses import Response

from fastpubsub.message_ids import MessageIds, hexadecimal
from fastpubsub.services.dead_letters import Letter
from fastpubsub.services.messages import Claim
from fastpubsub.services.tails import Logged

NO_CONTENT = Response(status_code=204)

_ID = slice(7, 43)
"""Of a delivery: `{"id":"…` """


def claim_json(claim: Claim, subscription_id: str) -> bytes:
    return b'{"data":[' + b",".join(_deliveries(claim, subscription_id)) + b"]}"


def delivery_json(claim: Claim, subscription_id: str) -> Iterator[tuple[str, bytes]]:
    """For streams: the messages one by one, each with its id."""
    for delivery in _deliveries(claim, subscription_id):
        yield delivery[_ID].decode(), delivery


def _deliveries(claim: Claim, subscription_id: str) -> Iterator[bytes]:
    """One operation writes each. There is no token where there is no delivery."""
    if not claim.positions:
        return
    shape = b'{"id":"%%b%%b-%%b","subscription_id":"%b","payload":%%b,"delivery_attempts":%%d,"created_at":"%%b",' % (
        subscription_id.encode()
    )
    expires_at = "" if claim.expires_at is None else _time(claim.expires_at)
    shape += f'"ack_id":"%b%b-%b.{hexadecimal(claim.token)}","lease_expires_at":"{expires_at}"%b}}'.encode()
    prefix = created = b""
    base = 0
    created_at = None
    for position, attempts, time, payload, attributes in zip(
        claim.positions, claim.attempts, claim.created_at, claim.payloads, claim.attributes, strict=True
    ):
        if time != created_at:
            ids = MessageIds(claim.keys.topic_key, time)
            created_at, created, prefix, base = time, _time(time).encode(), ids.prefix.encode(), ids.base
        low = b"%016x" % (base + position)
        high, low = low[:4], low[4:]
        more = b"" if attributes is None else b',"attributes":' + attributes
        yield shape % (prefix, high, low, payload, attempts, created, prefix, high, low, more)


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
