"""Subscriptions: their settings."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Literal

from fastpubsub import models
from fastpubsub.client.decimals import read_exactly, write_exactly
from fastpubsub.client.existing import must_change, require_same
from fastpubsub.client.requests.request import (
    UNSET,
    Request,
    Unset,
    creating,
    deleting,
    metrics_params,
    only_given,
    page_params,
    path_to,
    write_json,
)
from fastpubsub.models import Subscription


def create_subscription(
    id: str,
    topic_id: str,
    *,
    filter: Mapping[str, Any] | None = None,
    max_delivery_attempts: int | None = None,
    backoff_min_seconds: int | None = None,
    backoff_max_seconds: int | None = None,
    backoff_jitter: float | None = None,
    ack_deadline_seconds: int | None = None,
    start_from: Literal["latest", "earliest"] | datetime | None = None,
    fork_of: str | None = None,
    push: Mapping[str, Any] | None = None,
    ordered: bool = False,
    max_in_flight: int | None = None,
    rate_limit: float | None = None,
    dead_letter_topic: str | None = None,
    expire_after_seconds: int | None = None,
    on_expired: Literal["drop", "dead_letter"] | None = None,
    on_dead_letter: Literal["continue", "hold"] | None = None,
    max_backlog: int | None = None,
    on_full: Literal["reject", "drop_oldest", "dead_letter"] | None = None,
    fair_by: str | None = None,
    exist_ok: bool = False,
) -> Request[Subscription]:
    """Creates a subscription. None is the default of the server; with `fork_of`, the value of that subscription.

    Of each wait `backoff_jitter`, from 0 to 1, is left to chance, so that what failed together comes apart.
    `ordered` keeps the order of messages with the same ordering key. All consumers together hold up to `max_in_flight`
    messages, and get up to `rate_limit` a second; 0 is no limit. A copy of each dead letter is published to
    `dead_letter_topic`, which needs the scope `topics:publish` for it. After `expire_after_seconds` without a pull the
    server deletes the subscription; 0 is never. `on_expired` says what becomes of messages that expire. In an ordered
    subscription `on_dead_letter="hold"` lets nothing of the ordering key of a dead letter come until somebody
    reprocesses or purges it. With `max_backlog` at most so many messages of the topic come after its
    cursor: `on_full` refuses what is published (`TooManyRequests`), or drops the oldest or makes dead letters of them.
    With `fair_by="ordering_key"` the ordering keys of which messages wait get equally many, so that a key with many
    does not hold up the others; with `fair_by="attributes.tenant"` the values of that attribute do.

    With `fork_of` it begins before the oldest message that the other has not settled, instead of at `start_from`. With
    `exist_ok` it returns an existing one, and raises `AlreadyExists` when that differs from the given settings, except
    `start_from` and `fork_of`. `push` has the members of the HTTP API, as `{"endpoint": "https://example.com/hook"}`.
    Its secret is in this answer alone, and it does not go together with `exist_ok`.
    """
    if push is not None and exist_ok:
        raise ValueError("give either push or exist_ok: the headers of push cannot be compared, for they are secret")
    given = only_given(
        id=id,
        topic_id=topic_id,
        filter=filter,
        max_delivery_attempts=max_delivery_attempts,
        backoff_min_seconds=backoff_min_seconds,
        backoff_max_seconds=backoff_max_seconds,
        backoff_jitter=backoff_jitter,
        ack_deadline_seconds=ack_deadline_seconds,
        start_from=start_from,
        fork_of=fork_of,
        push=push,
        ordered=ordered or None,
        max_in_flight=max_in_flight,
        rate_limit=rate_limit,
        dead_letter_topic=dead_letter_topic,
        expire_after_seconds=expire_after_seconds,
        on_expired=on_expired,
        on_dead_letter=on_dead_letter,
        max_backlog=max_backlog,
        on_full=on_full,
        fair_by=fair_by,
    )
    existing = get_subscription(id) if exist_ok else None
    return creating("/subscriptions", given, Subscription, existing, partial(require_same, "subscription"))


def ensure_subscription(
    id: str,
    topic_id: str,
    *,
    filter: Mapping[str, Any] | None = None,
    max_delivery_attempts: int | None = None,
    backoff_min_seconds: int | None = None,
    backoff_max_seconds: int | None = None,
    backoff_jitter: float | None = None,
    ack_deadline_seconds: int | None = None,
    start_from: Literal["latest", "earliest"] | datetime | None = None,
    fork_of: str | None = None,
    ordered: bool = False,
    max_in_flight: int | None = None,
    rate_limit: float | None = None,
    dead_letter_topic: str | None = None,
    expire_after_seconds: int | None = None,
    on_expired: Literal["drop", "dead_letter"] | None = None,
    on_dead_letter: Literal["continue", "hold"] | None = None,
    max_backlog: int | None = None,
    on_full: Literal["reject", "drop_oldest", "dead_letter"] | None = None,
    fair_by: str | None = None,
) -> Request[Subscription]:
    """Creates it, or changes the given settings that differ, which is logged. `{}` means no filter.

    Raises `AlreadyExists` when it exists with another topic. `start_from` and `fork_of` count only when it is created.
    """
    settings = only_given(
        filter=filter,
        max_delivery_attempts=max_delivery_attempts,
        backoff_min_seconds=backoff_min_seconds,
        backoff_max_seconds=backoff_max_seconds,
        backoff_jitter=backoff_jitter,
        ack_deadline_seconds=ack_deadline_seconds,
        max_in_flight=max_in_flight,
        rate_limit=rate_limit,
        dead_letter_topic=dead_letter_topic,
        expire_after_seconds=expire_after_seconds,
        on_expired=on_expired,
        on_dead_letter=on_dead_letter,
        max_backlog=max_backlog,
        on_full=on_full,
    )
    beginning = only_given(start_from=start_from, fork_of=fork_of, ordered=ordered or None, fair_by=fair_by)
    content = write_exactly({"id": id, "topic_id": topic_id, **beginning, **settings}, write_json)
    return ensuring_subscription(id, content, write_exactly(settings, write_json))


def ensuring_subscription(
    id: str, content: bytes, settings: bytes, must_change: Callable[[bytes, bytes], bool] = must_change
) -> Request[Subscription]:
    update = replace(update_subscription(id), content=settings)
    return replace(
        create_subscription(id, "", exist_ok=True),
        content=content,
        reconcile=lambda sent, found: update if must_change(sent, found) else None,
    )


def get_subscription(id: str, *, include_metrics: bool = False) -> Request[Subscription]:
    path = path_to("subscriptions", id)
    return Request("GET", path, partial(read_exactly, Subscription), params=metrics_params(include_metrics))


def list_subscriptions(
    *,
    topic_id: str | None = None,
    q: str | None = None,
    include_metrics: bool = False,
    has_dead_letters: bool = False,
    offset: int = 0,
    limit: int = 10,
) -> Request[list[Subscription]]:
    """Lists up to 100 subscriptions of all topics, or of one, ordered by id; `q` is a part of their ids, without case.

    `has_dead_letters=True` lists only those with dead letters.
    """
    return Request(
        "GET",
        "/subscriptions",
        lambda answer: read_exactly(models.SubscriptionList, answer).data,
        params=page_params(offset, limit)
        | only_given(topic_id=topic_id, q=q, has_dead_letters="true" if has_dead_letters else None)
        | metrics_params(include_metrics),
    )


def update_subscription(
    id: str,
    *,
    filter: Mapping[str, Any] | Unset | None = UNSET,
    max_delivery_attempts: int | Unset = UNSET,
    backoff_min_seconds: int | Unset = UNSET,
    backoff_max_seconds: int | Unset = UNSET,
    backoff_jitter: float | Unset | None = UNSET,
    ack_deadline_seconds: int | Unset = UNSET,
    push: Mapping[str, Any] | Unset | None = UNSET,
    max_in_flight: int | Unset | None = UNSET,
    rate_limit: float | Unset | None = UNSET,
    dead_letter_topic: str | Unset | None = UNSET,
    expire_after_seconds: int | Unset | None = UNSET,
    on_expired: Literal["drop", "dead_letter"] | Unset = UNSET,
    on_dead_letter: Literal["continue", "hold"] | Unset = UNSET,
    max_backlog: int | Unset | None = UNSET,
    on_full: Literal["reject", "drop_oldest", "dead_letter"] | Unset = UNSET,
) -> Request[Subscription]:
    """A missing argument keeps the present value. `push` replaces all of its members; None lets messages be pulled.

    None or 0 as `max_in_flight`, `rate_limit`, `expire_after_seconds`, `max_backlog` or `backoff_jitter` removes it,
    None or "" as `dead_letter_topic` that topic.
    """
    body = {
        "filter": filter,
        "max_delivery_attempts": max_delivery_attempts,
        "backoff_min_seconds": backoff_min_seconds,
        "backoff_max_seconds": backoff_max_seconds,
        "backoff_jitter": backoff_jitter,
        "ack_deadline_seconds": ack_deadline_seconds,
        "push": push,
        "max_in_flight": max_in_flight,
        "rate_limit": rate_limit,
        "dead_letter_topic": dead_letter_topic,
        "expire_after_seconds": expire_after_seconds,
        "on_expired": on_expired,
        "on_dead_letter": on_dead_letter,
        "max_backlog": max_backlog,
        "on_full": on_full,
    }
    given = {name: value for name, value in body.items() if not isinstance(value, Unset)}
    return Request(
        "PATCH", path_to("subscriptions", id), partial(read_exactly, Subscription), write_exactly(given, write_json)
    )


def delete_subscription(id: str) -> Request[None]:
    """Deletes the subscription and everything in it, including dead letters."""
    return deleting(path_to("subscriptions", id))
