"""Moving, pausing and emptying subscriptions, and trying filters."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Literal

from fastpubsub.client.decimals import read_exactly, write_exactly
from fastpubsub.client.requests.publishing import Payload
from fastpubsub.client.requests.request import Request, no_result, only_given, path_to, write_json
from fastpubsub.models import FilterTested, Message, PurgedSubscription, SeekPreview, Subscription


def seek(
    subscription_id: str,
    to: Literal["latest", "earliest"] | datetime | uuid.UUID | Message | str,
    *,
    dry_run: bool = False,
) -> Request[SeekPreview | None]:
    """Replays or skips: `to` is `earliest`, `latest`, a time with its zone, or the message that comes next.

    `dry_run`: returns what it would do, and changes nothing.
    """
    body = {"to": to.id if isinstance(to, Message) else to, **only_given(dry_run=dry_run or None)}
    read = SeekPreview.model_validate_json if dry_run else no_result
    return Request("POST", path_to("subscriptions", subscription_id, "seek"), read, write_json(body))


def test_filter(
    subscription_id: str,
    filter: Mapping[str, Any] | None,
    *,
    payload: Payload | None = None,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str | None = None,
    last: int | None = None,
) -> Request[FilterTested]:
    """Judges a payload with what is beside it, or the last messages (100, up to 1,000), by a filter; nothing changes.

    It also estimates how many messages would be ahead.
    """
    given = only_given(payload=payload, attributes=attributes, ordering_key=ordering_key, last=last)
    return _test_filter(path_to("subscriptions", subscription_id, "filter", "test"), filter, given)


def test_topic_filter(
    topic_id: str,
    filter: Mapping[str, Any] | None,
    *,
    payload: Payload | None = None,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str | None = None,
    last: int | None = None,
) -> Request[FilterTested]:
    """Judges a payload with what is beside it, or the last messages of a topic (100, up to 1,000), by a filter."""
    given = only_given(payload=payload, attributes=attributes, ordering_key=ordering_key, last=last)
    return _test_filter(path_to("topics", topic_id, "filter", "test"), filter, given)


def _test_filter(path: str, filter: Mapping[str, Any] | None, given: dict[str, Any]) -> Request[FilterTested]:
    body = {"filter": filter, **given}
    return Request("POST", path, FilterTested.model_validate_json, write_exactly(body, write_json))


def pause(subscription_id: str) -> Request[Subscription]:
    """Delivers nothing to pulls and streams until `resume`; consumers can settle the messages that they hold."""
    return Request("POST", path_to("subscriptions", subscription_id, "pause"), partial(read_exactly, Subscription))


def resume(subscription_id: str) -> Request[Subscription]:
    """Ends a pause."""
    return Request("POST", path_to("subscriptions", subscription_id, "resume"), partial(read_exactly, Subscription))


def purge(subscription_id: str) -> Request[PurgedSubscription]:
    """Settles all messages that are ahead, leased or waiting, and counts them; dead letters stay."""
    path = path_to("subscriptions", subscription_id, "purge")
    return Request("POST", path, PurgedSubscription.model_validate_json, repeatable=False)
