"""Receives what a server pushes in a FastAPI application.

webhooks = Webhooks(os.environ["PUSH_SECRETS"].split())

@app.post("/orders", status_code=204)
async def take(pushed: Annotated[Pushed[Order], Depends(webhooks.of(Order))]) -> None:
    print(pushed.id, pushed.payload.total)
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import HTTPException, Request
from pydantic import TypeAdapter, ValidationError

from fastpubsub.client.webhooks import TOLERANCE_SECONDS, Handled, InvalidWebhook, listed, require_secrets, verify

MAX_BODY_BYTES = 16 * 1024 * 1024

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class Pushed(Generic[Payload]):
    id: str
    """Of the message: the same each time it is pushed."""

    payload: Payload


class Webhooks:
    """Accepts only requests that are signed with one of the secrets; skips messages that this process has handled.

    A request without a valid signature gets 401, a payload of another type 422, a body of more than `max_body_bytes`
    413, a message that was already handled 200, and one that is being handled 425. A secret that is missing or cannot
    be one raises ValueError.
    """

    def __init__(
        self,
        secrets: str | Iterable[str],
        *,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._secrets = listed(secrets)
        require_secrets(self._secrets)
        self._tolerance_seconds = tolerance_seconds
        self._max_body_bytes = max_body_bytes
        self._handled = Handled(2 * tolerance_seconds)
        self._in_hand: set[str] = set()

    def of(self, payload_type: type[Payload]) -> Callable[[Request], AsyncIterator[Pushed[Payload]]]:
        """Returns a dependency that gives the message with its payload as this type."""
        adapter = TypeAdapter(payload_type)

        async def pushed(request: Request) -> AsyncIterator[Pushed[Payload]]:
            body = await self._body(request)
            message_id = self._verified(request, body)
            try:
                message = Pushed(message_id, adapter.validate_json(body))
            except ValidationError as error:
                raise HTTPException(422, error.errors(include_input=False, include_url=False)) from None
            with self._once(message_id):
                yield message

        return pushed

    @contextmanager
    def _once(self, message_id: str) -> Iterator[None]:
        if message_id in self._handled:
            raise HTTPException(200, "this message was handled already")
        if message_id in self._in_hand:
            raise HTTPException(425, "this message is being handled; it is settled when it comes again")
        self._in_hand.add(message_id)
        try:
            yield
            self._handled.add(message_id)
        finally:
            self._in_hand.discard(message_id)

    def _verified(self, request: Request, body: bytes) -> str:
        try:
            return verify(request.headers, body, self._secrets, tolerance_seconds=self._tolerance_seconds)
        except InvalidWebhook as error:
            raise HTTPException(401, str(error)) from None

    async def _body(self, request: Request) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > self._max_body_bytes:
                raise HTTPException(413, f"the body has more than {self._max_body_bytes} bytes")
            parts.append(part)
        return b"".join(parts)
