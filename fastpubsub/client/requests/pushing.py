"""Subscriptions that are pushed."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from fastpubsub import models
from fastpubsub.client.decimals import read_exactly
from fastpubsub.client.requests.request import Page, Request, as_texts, creating, only_given, path_to, read_page

BY_HAND_SECONDS = 30.0
"""That the server may wait for the answer of an endpoint."""


def get_push_status(id: str) -> Request[models.PushStatus]:
    """Tells whether a process pushes the subscription now, and the breaker of its endpoint."""
    return Request("GET", path_to("subscriptions", id, "push"), partial(read_exactly, models.PushStatus))


def rotate_push_secret(id: str, *, old_secret_seconds: int = 86400) -> Request[models.PushSecret]:
    """Returns another secret, only once; the previous one also signs, for `old_secret_seconds`."""
    body = {"old_secret_seconds": old_secret_seconds}
    return creating(path_to("subscriptions", id, "push", "secrets"), body, models.PushSecret)


def test_push(id: str, *, payload: Mapping[str, Any] | None = None) -> Request[models.PushTested]:
    """Sends a signed test to the endpoint of push now, and returns what it answered; no message is touched.

    It has `payload`, or one that says that it is a test. It may take 30 seconds. More than 30 in a minute are refused.
    """
    return _by_hand(path_to("subscriptions", id, "push", "test"), only_given(payload=payload))


def resend_message(id: str, message_id: UUID | str) -> Request[models.PushTested]:
    """Sends a message of the topic to the endpoint of push once more, now, and returns what it answered.

    Whatever became of the message stays as it is. It may take 30 seconds. More than 30 in a minute are refused.
    """
    return _by_hand(path_to("subscriptions", id, "push", "resend"), {"message_id": str(message_id)})


def _by_hand(path: str, body: Mapping[str, Any]) -> Request[models.PushTested]:
    return replace(creating(path, body, models.PushTested), holds=BY_HAND_SECONDS)


def list_push_attempts(
    id: str, *, message_id: str | None = None, limit: int = 100, page_token: str | None = None
) -> Request[Page[models.PushAttempt]]:
    """Lists the outcomes of up to 100 pushes, newest first, of one message or of all.

    `page_token` is `next_page_token` of the page before.
    """
    params = as_texts(only_given(message_id=message_id, limit=limit, page_token=page_token))
    read = partial(read_page, models.PushAttemptList)
    return Request("GET", path_to("subscriptions", id, "attempts"), read, params=params)
