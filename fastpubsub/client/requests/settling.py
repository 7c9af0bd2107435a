"""Settling deliveries."""

from collections.abc import Mapping
from typing import Any, Self

from fastpubsub import models
from fastpubsub.client.requests.identifiers import Ids, are_ack_ids, list_ids
from fastpubsub.client.requests.request import REPRESENTATION, Request, only_given, path_to, write_json
from fastpubsub.models import Settled

MAX_REASON = 1024
NO_REASON = "rejected"


class Settlement:
    """The messages that `settle_and_pull` settles. Each method returns the settlement itself."""

    def __init__(self) -> None:
        self.body: dict[str, list[Any]] = {name: [] for name in models.Settles.model_fields}
        self.repeatable = True

    def ack(self, ids: Ids) -> Self:
        """Marks messages as done: they do not come again."""
        self.body["acks"] += list_ids(ids)
        return self

    def nack(
        self, ids: Ids, *, delay_seconds: int | None = None, undelivered: bool = False, reason: object = None
    ) -> Self:
        """Gives back messages that failed: they come again, as after `nack` of the client."""
        options = only_given(delay_seconds=delay_seconds, undelivered=undelivered or None, reason=nack_reason(reason))
        return self._add("nacks", ids, options)

    def reject(self, ids: Ids, *, reason: object = NO_REASON) -> Self:
        """Makes messages dead letters, because they will never succeed. The reason is cut after 1,024 characters."""
        return self._add("rejects", ids, {"reason": as_reason(reason)})

    def extend(self, ids: Ids, *, seconds: int) -> Self:
        """Moves the deadline of messages to `seconds` from now."""
        self.body["leases"].append({"ids": list_ids(ids), "extend_seconds": seconds})
        return self

    def _add(self, member: str, ids: Ids, options: Mapping[str, Any]) -> Self:
        given = list_ids(ids)
        self.body[member].append({"ids": given, **options})
        self.repeatable = self.repeatable and are_ack_ids(given)
        return self


def ack(subscription_id: str, ids: Ids) -> Request[Settled]:
    """Marks messages as done: they do not come again."""
    return _settle(subscription_id, "acks", write_json(list_ids(ids)))


def nack(
    subscription_id: str,
    ids: Ids,
    *,
    delay_seconds: int | None = None,
    undelivered: bool = False,
    reason: object = None,
) -> Request[Settled]:
    """Gives back messages that failed: they come again after the backoff of the subscription, or after `delay_seconds`.

    `undelivered`: they were not looked at, so they come again at once, and the attempt does not count.
    `reason`: why, such as the exception; cut after 1,024 characters, and shown while they wait and when they die.
    """
    given = list_ids(ids)
    if reason is not None:
        options = only_given(delay_seconds=delay_seconds, undelivered=undelivered or None, reason=nack_reason(reason))
        body = write_json({"ids": given, **options})
        return _settle(subscription_id, "nacks", body, repeatable=are_ack_ids(given))
    params = {} if delay_seconds is None else {"delay_seconds": str(delay_seconds)}
    if undelivered:
        params["undelivered"] = "true"
    return _settle(subscription_id, "nacks", write_json(given), params, repeatable=are_ack_ids(given))


def reject(subscription_id: str, ids: Ids, *, reason: object = "rejected") -> Request[Settled]:
    """Makes messages dead letters, because they will never succeed. The reason is cut after 1,024 characters."""
    given = list_ids(ids)
    body = write_json({"ids": given, "reason": as_reason(reason)})
    return _settle(subscription_id, "rejects", body, repeatable=are_ack_ids(given))


def as_reason(reason: object, instead: str = NO_REASON) -> str:
    """Returns 1 to 1,024 characters. NUL, and the lone surrogates of file names, are escaped."""
    if reason is None:
        return instead
    try:
        text = f"{type(reason).__name__}: {reason}".rstrip(": ") if isinstance(reason, BaseException) else str(reason)
        text = text[:MAX_REASON].encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    except BaseException:  # noqa: BLE001 - of an object of theirs
        text = type(reason).__name__
    return text[:MAX_REASON] or instead


def nack_reason(reason: object) -> str | None:
    return as_reason(reason, "") or None


def extend(subscription_id: str, ids: Ids, *, seconds: int) -> Request[list[str]]:
    """Moves the deadline of messages to `seconds` from now; returns those that are still held."""
    return Request(
        "POST",
        path_to("subscriptions", subscription_id, "leases"),
        lambda answer: models.Extended.model_validate_json(answer).ids,
        write_json({"ids": list_ids(ids), "extend_seconds": seconds}),
    )


def _settle(
    subscription_id: str, how: str, content: bytes, params: Mapping[str, str] | None = None, *, repeatable: bool = True
) -> Request[Settled]:
    return Request(
        "POST",
        path_to("subscriptions", subscription_id, how),
        Settled.model_validate_json,
        content,
        params or {},
        REPRESENTATION,
        repeatable,
    )
