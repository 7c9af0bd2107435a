"""Dead letters and redrives."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Literal

from fastpubsub import models
from fastpubsub.client.decimals import read_exactly, write_exactly
from fastpubsub.client.requests.identifiers import Ids, list_ids, place_params
from fastpubsub.client.requests.request import (
    REPRESENTATION,
    Page,
    Request,
    no_result,
    only_given,
    page_params,
    path_to,
    read_page,
    write_json,
)
from fastpubsub.models import DeadLetter, DeadLetterReason, Redrive


def list_dead_letters(
    subscription_id: str,
    *,
    reason: str | None = None,
    died_after: datetime | None = None,
    died_before: datetime | None = None,
    page_token: str | None = None,
    offset: int = 0,
    limit: int = 10,
) -> Request[Page[DeadLetter]]:
    """Lists up to 100, in the order in which they were published.

    `reason` is the exact one; `died_after` is included, `died_before` is not. `page_token` is `next_page_token` of the
    page before, instead of `offset`.
    """
    given = only_given(reason=reason)
    given |= place_params("died_after", died_after) | place_params("died_before", died_before)
    page = page_params(offset, limit) if page_token is None else {"page_token": page_token, "limit": str(limit)}
    path = path_to("subscriptions", subscription_id, "dlq")
    return Request("GET", path, partial(read_page, models.DeadLetterList), params=page | given)


def reprocess_dead_letters(subscription_id: str, ids: Ids) -> Request[list[str]]:
    """Gives dead letters to the consumers again, attempts counted from 1; returns those that existed."""
    return _move("POST", path_to("subscriptions", subscription_id, "dlq", "reprocess"), ids)


def purge_dead_letters(subscription_id: str, ids: Ids) -> Request[list[str]]:
    """Deletes dead letters for good; returns those that existed."""
    return _move("DELETE", path_to("subscriptions", subscription_id, "dlq"), ids)


def list_dead_letter_reasons(subscription_id: str) -> Request[list[DeadLetterReason]]:
    """Counts dead letters by reason, the most frequent first, up to 100 reasons."""
    return Request(
        "GET",
        path_to("subscriptions", subscription_id, "dlq", "reasons"),
        lambda answer: models.DeadLetterReasonList.model_validate_json(answer).data,
    )


def create_redrive(
    subscription_id: str,
    action: Literal["reprocess", "purge"] = "reprocess",
    *,
    reason: str | None = None,
    filter: Mapping[str, Any] | None = None,
    died_after: datetime | None = None,
    died_before: datetime | None = None,
    per_second: int | None = None,
) -> Request[Redrive]:
    """Begins to reprocess or purge all dead letters that match, `per_second` at most, in the background of the server.

    `filter` is as that of a subscription, such as `{"country": ["BR"]}`. The request is not repeated after an answer
    was lost: check `list_redrives` first.
    """
    given = only_given(
        reason=reason, filter=filter, died_after=died_after, died_before=died_before, per_second=per_second
    )
    body = {"action": action, **given}
    path = path_to("subscriptions", subscription_id, "redrives")
    content = write_exactly(body, write_json)
    return Request("POST", path, partial(read_exactly, Redrive), content, repeatable=False)


def list_redrives(subscription_id: str) -> Request[list[Redrive]]:
    """Lists the redrives of a subscription, newest first."""
    return Request(
        "GET",
        path_to("subscriptions", subscription_id, "redrives"),
        lambda answer: read_exactly(models.RedriveList, answer).data,
    )


def get_redrive(subscription_id: str, redrive_id: int) -> Request[Redrive]:
    """Gets a redrive with its progress."""
    path = path_to("subscriptions", subscription_id, "redrives", str(redrive_id))
    return Request("GET", path, partial(read_exactly, Redrive))


def cancel_redrive(subscription_id: str, redrive_id: int) -> Request[None]:
    """Ends a redrive; the messages that it has moved stay moved."""
    return Request("DELETE", path_to("subscriptions", subscription_id, "redrives", str(redrive_id)), no_result)


def _move(method: str, path: str, ids: Ids) -> Request[list[str]]:
    return Request(
        method,
        path,
        lambda answer: models.Moved.model_validate_json(answer).ids,
        write_json(list_ids(ids)),
        headers=REPRESENTATION,
    )
