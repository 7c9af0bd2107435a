"""Pushes to an application of the same process, as a server pushes to a service."""

import time
from collections.abc import Collection
from typing import Any

import httpx

from fastpubsub.client import Message, Reject, Retry, Worker
from fastpubsub.client.decimals import write_exactly
from fastpubsub.client.requests.request import write_json
from fastpubsub.client.webhooks import require_secrets, sign


def pushing(subscription_id: str, app: Any, path: str, secret: str, reject_on: Collection[int]) -> Worker:
    """A worker that posts each message, and settles it by the status of the answer."""
    require_secrets([secret])
    worker = Worker()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    @worker.subscriber(subscription_id)
    async def push(message: Message) -> None:
        body = write_exactly(message.payload, write_json)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            answer = await client.post(path, content=body, headers=headers_of(message, body, secret))
        said = f"the endpoint answered {answer.status_code}" + (f": {answer.text}" if answer.text else "")
        if answer.status_code in reject_on:
            raise Reject(said)
        if not answer.is_success:
            raise Retry(said)

    return worker


def headers_of(message: Message, body: bytes, secret: str) -> dict[str, str]:
    timestamp = int(time.time())
    return {
        "Content-Type": "application/json",
        "webhook-id": str(message.id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, f"{message.id}.{timestamp}.".encode() + body).decode(),
        "fastpubsub-subscription": message.subscription_id,
        "fastpubsub-attempt": str(message.delivery_attempts),
    }
