"""Pulling and following."""

import os
import socket
import uuid
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from fastpubsub import models
from fastpubsub.client.decimals import write_exactly
from fastpubsub.client.requests.request import REPRESENTATION, Request, T, no_result, path_to, write_json
from fastpubsub.client.requests.settling import Settlement
from fastpubsub.models import Message, SettledAndPulled

MAX_WAIT_SECONDS = 20


def pull(
    subscription_id: str, *, batch_size: int = 10, wait_seconds: int = 0, consumer_id: str | None = None
) -> Request[list[Message]]:
    """Leases up to 100 messages. With `wait_seconds`, up to 20, it waits for messages when there are none."""
    return pull_with(
        lambda answer: models.MessageList.model_validate_json(answer).data,
        subscription_id,
        batch_size,
        wait_seconds,
        consumer_id,
    )


def settle_and_pull(
    subscription_id: str,
    settlement: Settlement,
    *,
    batch_size: int = 10,
    wait_seconds: int = 0,
    consumer_id: str | None = None,
) -> Request[SettledAndPulled]:
    """Settles messages and leases the next ones, in one request: both happen, or neither does.

    With `wait_seconds`, it settles before it waits. When an answer is lost and the request is repeated, the messages
    that the first one settled are `gone`, and the messages that it leased come again after their ack deadline.
    """
    read = SettledAndPulled.model_validate_json
    return pull_with(read, subscription_id, batch_size, wait_seconds, consumer_id, settlement)


@lru_cache(maxsize=1)
def _consumer_id(process: int) -> str:
    """Of a process, which the leases show."""
    return f"{socket.gethostname()[:200]}:{process}:{uuid.uuid4().hex[:8]}"


def pull_with(
    read: Callable[[bytes], T],
    subscription_id: str,
    batch_size: int,
    wait_seconds: int,
    consumer_id: str | None,
    settlement: Settlement | None = None,
) -> Request[T]:
    """Settles before, if there is something to settle."""
    params = {"consumer_id": consumer_id or _consumer_id(os.getpid()), "batch_size": str(batch_size)}
    if wait_seconds:
        params["wait_seconds"] = str(wait_seconds)
    if settlement is None:
        path = path_to("subscriptions", subscription_id, "messages")
        return Request("GET", path, read, params=params, holds=wait_seconds)
    return Request(
        "POST",
        path_to("subscriptions", subscription_id, "pulls"),
        read,
        write_json({name: part for name, part in settlement.body.items() if part}),
        params,
        REPRESENTATION,
        settlement.repeatable,
        holds=wait_seconds,
    )


def end_waits(subscription_id: str, consumer_id: str | None = None) -> Request[None]:
    """Lets the server answer the waiting pulls of this consumer now."""
    params = {"consumer_id": consumer_id or _consumer_id(os.getpid())}
    return Request("DELETE", path_to("subscriptions", subscription_id, "waits"), no_result, params=params)


def follow(
    topic_id: str, *, after: str | None = None, recent: int = 0, filter: Mapping[str, Any] | None = None
) -> Request[None]:
    """Opens a stream of Server-Sent Events: after a message, or from now on with the `recent` ones first."""
    headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
    params = {"recent": str(recent)} if recent else {}
    if filter:
        params["filter"] = write_exactly(filter, write_json).decode()
    return Request("GET", path_to("topics", topic_id, "stream"), no_result, params=params, headers=headers)
