"""Figures, consumers, history and changes."""

import uuid
from datetime import datetime
from functools import partial
from typing import Literal

from fastpubsub.client.requests.identifiers import place_params
from fastpubsub.client.requests.request import Page, Request, as_texts, only_given, path_to, read_page
from fastpubsub.models import ChangeList, Consumer, ConsumerList, History, Overview, SubscriptionMetrics


def metrics(subscription_id: str) -> Request[SubscriptionMetrics]:
    """Counts the messages of a subscription by state."""
    return Request("GET", path_to("subscriptions", subscription_id, "metrics"), SubscriptionMetrics.model_validate_json)


def list_consumers(subscription_id: str, *, limit: int = 100, page_token: str | None = None) -> Request[Page[Consumer]]:
    """Lists up to 100 consumers that hold messages or wait for some, ordered by id, on all servers.

    Waiting at other server processes is known with a delay of up to 5 seconds. `page_token` is
    `next_page_token` of the page before.
    """
    path = path_to("subscriptions", subscription_id, "consumers")
    params = as_texts(only_given(limit=limit, page_token=page_token))
    return Request("GET", path, partial(read_page, ConsumerList), params=params)


def overview() -> Request[Overview]:
    """Sums up what the client may see, and lists what needs attention."""
    return Request("GET", "/overview", Overview.model_validate_json)


def history(
    subscription_id: str | None = None,
    *,
    topic_id: str | None = None,
    interval_seconds: Literal[5, 60] = 5,
    start: int | None = None,
    end: int | None = None,
) -> Request[History]:
    """Counts what happened to a subscription or a topic, or to everything, in intervals of 5 s of the last hour, or of
    60 s of the last day. `start` and `end` are Unix times. Columns that do not fit are empty.
    """
    if subscription_id is not None and topic_id is not None:
        raise ValueError("give a subscription or a topic, not both")
    path = path_to("overview", "history")
    if subscription_id is not None:
        path = path_to("subscriptions", subscription_id, "history")
    elif topic_id is not None:
        path = path_to("topics", topic_id, "history")
    params = only_given(interval_seconds=interval_seconds, to=end) | ({} if start is None else {"from": start})
    return Request("GET", path, History.model_validate_json, params=as_texts(params))


def list_changes(
    *,
    object: Literal["topic", "subscription", "client"] | None = None,
    object_id: str | None = None,
    client_id: str | uuid.UUID | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    limit: int = 10,
    page_token: str | None = None,
) -> Request[ChangeList]:
    """Lists up to 100 changes of topics, subscriptions and clients, newest first: what, when, and by which client.

    Those of one kind of object, of one id, of one client, from `after` on, and earlier than `before`; both are times
    with a time zone. `page_token` is `next_page_token` of the page before. It needs the scope `audit:read`.
    """
    params = only_given(object=object, object_id=object_id, client_id=client_id, limit=limit, page_token=page_token)
    params |= place_params("after", after) | place_params("before", before)
    return Request("GET", "/audit", ChangeList.model_validate_json, params=as_texts(params))
