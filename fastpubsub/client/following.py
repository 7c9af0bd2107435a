"""Follows a topic through all errors that can pass."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from pydantic import ValidationError

from fastpubsub.client import requests
from fastpubsub.client.connections import ONCE, ONCE_MORE, AsyncConnection
from fastpubsub.client.errors import BusError, UnexpectedAnswer
from fastpubsub.client.pulling import PASSING, pause
from fastpubsub.client.server_sent_events import Event, EventParser
from fastpubsub.models import TopicMessage

logger = logging.getLogger("fastpubsub.client")


async def follow(
    client: AsyncConnection, topic_id: str, after: str | None, recent: int, wanted: Mapping[str, Any] | None
) -> AsyncGenerator[TopicMessage, None]:
    missed = False
    failures = 0
    while True:
        trouble: BusError | None = None
        try:
            request = requests.follow(topic_id, after=after, recent=recent, filter=wanted)
            async with client.open(request, ONCE_MORE if failures else ONCE) as chunks:
                async for event in _events(chunks):
                    if failures:
                        logger.info("the topic can be followed again: topic_id=%s", topic_id)
                    failures = 0
                    if event.kind == "gap":
                        missed = True
                    elif event.kind == "message":
                        yield _message(event.data, missed)
                        missed = False
                    after = event.place or after
        except PASSING as error:
            if not failures:
                logger.warning(
                    "the topic cannot be followed; trying again until it works: topic_id=%s error=%s", topic_id, error
                )
            trouble = error
            failures += 1
        await asyncio.sleep(pause(failures, trouble))


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    parser = EventParser()
    async for chunk in chunks:
        for event in parser.feed(chunk):
            yield event


def _message(data: bytes, missed: bool) -> TopicMessage:
    try:
        message = TopicMessage.model_validate_json(data)
    except ValidationError as error:
        raise UnexpectedAnswer(f"this is not a message of a topic: {error.errors()[0]['msg']}") from None
    message.missed = missed
    return message
