"""Everything that is published to a topic, through all trouble that passes."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

from pydantic import ValidationError

from fastpubsub.client import requests
from fastpubsub.client.clients import AsyncClient
from fastpubsub.client.errors import UnexpectedAnswer
from fastpubsub.client.pulling import AGAIN, PASSING
from fastpubsub.models import TopicMessage

logger = logging.getLogger("fastpubsub.client")

END = b"\n\n"


class Event(NamedTuple):
    """A Server-Sent Event. Without data it says only where the stream is."""

    kind: str
    id: str | None
    data: bytes


async def follow(
    client: AsyncClient, topic_id: str, after: str | None, recent: int
) -> AsyncGenerator[TopicMessage, None]:
    missed = False
    failures = 0
    while True:
        retry_after = None
        try:
            async with client.open(requests.follow(topic_id, after=after, recent=recent)) as chunks:
                async for event in read_events(chunks):
                    if failures:
                        logger.info("the topic can be followed again: topic_id=%s", topic_id)
                    failures = 0
                    if event.kind == "message" and event.data:
                        yield _message(event.data, missed)
                    missed = event.kind == "gap"
                    after = event.id or after
        except PASSING as error:
            if not failures:
                logger.warning(
                    "the topic cannot be followed; trying until it works: topic_id=%s error=%s", topic_id, error
                )
            retry_after = getattr(error, "retry_after", None)
            failures += 1
        await asyncio.sleep(AGAIN.pause(failures, retry_after))


def _message(data: bytes, missed: bool) -> TopicMessage:
    try:
        message = TopicMessage.model_validate_json(data)
    except ValidationError as error:
        raise UnexpectedAnswer(f"this is no message of a topic: {error.errors()[0]['msg']}") from None
    message.missed = missed
    return message


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
    """Bytes, because a payload may have characters that are ends of lines for everybody but this format."""
    buffer = bytearray()
    async for chunk in chunks:
        searched = max(len(buffer) - 1, 0)
        buffer += chunk
        while (end := buffer.find(END, searched)) >= 0:
            yield _event(bytes(buffer[:end]))
            del buffer[: end + len(END)]
            searched = 0


def _event(text: bytes) -> Event:
    fields: dict[bytes, list[bytes]] = {}
    for line in text.split(b"\n"):
        name, _, value = line.partition(b":")
        fields.setdefault(name, []).append(value.removeprefix(b" "))
    kind = fields.get(b"event", [b"message"])[-1].decode()
    place = fields[b"id"][-1].decode() if b"id" in fields else None
    return Event(kind, place, b"\n".join(fields.get(b"data", [])))
