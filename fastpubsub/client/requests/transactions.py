"""Settling and publishing together."""

from collections.abc import Mapping
from typing import Any, Self

from fastpubsub.client.requests.identifiers import Ids, are_ack_ids, list_ids
from fastpubsub.client.requests.publishing import Outgoing, Payload, address, encode
from fastpubsub.client.requests.request import Request, no_result, only_given, write_json
from fastpubsub.client.requests.settling import NO_REASON, as_reason, nack_reason
from fastpubsub.client.topics import AnyTopic


class Transaction:
    """Messages that `transact` settles and publishes. Each method returns the transaction itself.

    Ids are ack ids, or messages that were pulled: a bare message id does not say which delivery is meant.
    """

    def __init__(self) -> None:
        self._settles: dict[str, dict[str, Any]] = {}
        self._publishes: list[bytes] = []

    def ack(self, subscription_id: str, ids: Ids) -> Self:
        """Marks messages as done: they do not come again."""
        self._of(subscription_id)["acks"] += _ack_ids(ids)
        return self

    def nack(self, subscription_id: str, ids: Ids, *, delay_seconds: int | None = None, reason: object = None) -> Self:
        """Gives back messages that failed, which come again after the backoff or `delay_seconds`."""
        nack = {"ids": _ack_ids(ids), **only_given(delay_seconds=delay_seconds, reason=nack_reason(reason))}
        self._of(subscription_id)["nacks"].append(nack)
        return self

    def reject(self, subscription_id: str, ids: Ids, *, reason: object = NO_REASON) -> Self:
        """Makes messages dead letters, because they will never succeed. The reason is cut after 1,024 characters."""
        self._of(subscription_id)["rejects"].append({"ids": _ack_ids(ids), "reason": as_reason(reason)})
        return self

    def publish(
        self,
        topic_id: AnyTopic,
        *payloads: Payload | Outgoing,
        attributes: Mapping[str, str] | None = None,
        ordering_key: str | None = None,
    ) -> Self:
        """The messages reach the topic shortly after, in the order of the calls."""
        messages = b",".join(encode(one, attributes, ordering_key).enveloped() for one in payloads)
        topic = write_json(address(topic_id, *payloads))
        self._publishes.append(b'{"topic_id":%b,"messages":[%b]}' % (topic, messages))
        return self

    def content(self) -> bytes:
        settles = [{"subscription_id": id_, **one} for id_, one in self._settles.items()]
        return b'{"settles":%b,"publishes":[%b]}' % (write_json(settles), b",".join(self._publishes))

    def _of(self, subscription_id: str) -> dict[str, Any]:
        return self._settles.setdefault(subscription_id, {"acks": [], "nacks": [], "rejects": []})


def transact(transaction: Transaction) -> Request[None]:
    """Settles and publishes everything or nothing; raises `NoLongerHeld` when a delivery is no longer held.

    The request is not repeated when its outcome is unknown: it raises `ConnectionFailed`.
    """
    return Request("POST", "/transactions", no_result, transaction.content(), repeatable=False)


def _ack_ids(ids: Ids) -> list[str]:
    given = list_ids(ids)
    if not are_ack_ids(given):
        raise ValueError("a transaction settles by ack ids: pass messages that were pulled, or their `ack_id`")
    return given
