"""Server-Sent Events: the format of the HTML standard, and the answer that is such a stream."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

from fastapi import Response
from starlette.types import Receive, Scope, Send

from fastpubsub.api.render import delivery_json, logged_json
from fastpubsub.api.streams import LEFT, Beside, Stream, Streams, finish
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.message_ids import MessageIds
from fastpubsub.services.deliveries import StreamedClaim
from fastpubsub.services.tails import Logged, Tail

MEDIA_TYPE = "text/event-stream"
RETRY = b"retry: 1000\n\n"
COMMENT = b":\n\n"
GAP = b'event: gap\ndata: {"reason":"messages were deleted before they could be read"}\n\n'
_END_OF_LINE = re.compile(rb"\r\n|\r|\n")


def message_event(message_id: str, message: bytes) -> bytes:
    """A payload may have ends of lines between its tokens: each line is a `data:` of its own."""
    if b"\n" in message or b"\r" in message:
        message = _END_OF_LINE.sub(b"\ndata: ", message)
    return b"event: message\nid: %b\ndata: %b\n\n" % (message_id.encode(), message)


def end_event(reason: str) -> bytes:
    return b"event: end\ndata: %b\n\n" % json.dumps({"reason": reason}).encode()


def logged_events(messages: Sequence[Logged]) -> list[bytes]:
    return [message_event(*logged_json(message)) for message in messages]


def _place(topic_key: int, position: int) -> bytes:
    """No event, but what a client says as `Last-Event-ID` when it comes back before it has seen a message."""
    return b"id: %b\n\n" % MessageIds(topic_key, datetime.now(UTC)).at(position).encode()


async def tail_events(tail: Tail) -> AsyncGenerator[bytes]:
    yield _place(tail.topic_key, tail.start)
    async with contextlib.aclosing(tail.parts()) as parts:
        async for part in parts:
            if part.messages or part.missed:
                yield b"".join([GAP, *part.messages] if part.missed else part.messages)
            else:
                yield _place(tail.topic_key, part.position)
    if tail.ended is not None:
        yield end_event(tail.ended)


async def delivery_events(deliveries: AsyncGenerator[StreamedClaim], subscription_id: str) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(deliveries):
        async for delivery in deliveries:
            yield b"".join(message_event(*one) for one in delivery_json(delivery.claim, subscription_id))
            delivery.is_sent = True


class EventStream(Response):
    """Sends what `events` yields until that ends, the client goes away, or the stream is ended."""

    media_type = MEDIA_TYPE

    def __init__(self, streams: Streams, token: bytes | None, events: AsyncGenerator[bytes]) -> None:
        streams.require_room()
        # Nothing may follow on this connection, so that it can be cut when the client does not take the end.
        super().__init__(headers={"X-Accel-Buffering": "no", "Connection": "close"})
        del self.headers["content-length"]
        self._streams = streams
        self._token = token
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = None
        hold = self._streams.hold(send, self._token, _watcher(receive), self._beat)
        async with contextlib.aclosing(self._events), hold as stream:
            await stream.send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await stream.send(_body(RETRY))
            try:
                async for events in self._events:
                    await self._streams.look_again(stream)
                    await stream.send(_body(events))
            except FastpubsubError as error:
                reason = error.detail
        reason = stream.reason or reason
        last = _body(end_event(reason) if reason else b"") | {"more_body": False}
        await finish(reason, receive, send, last)

    async def _beat(self, stream: Stream) -> None:
        while True:
            await asyncio.sleep(self._streams.heartbeat_seconds)
            if not stream.is_sending:
                await stream.send(_body(COMMENT))


def _watcher(receive: Receive) -> Beside:
    async def watch(stream: Stream) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        stream.end(LEFT)

    return watch


def _body(body: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": True}
