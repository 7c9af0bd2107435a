"""What type checkers see of publishing: a `Topic` takes payloads of its type, an id any."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast, overload

from fastpubsub.client.requests import Outgoing, Payload
from fastpubsub.client.topics import Topic

T = TypeVar("T")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Publish(Protocol[Result_co]):
    """`publish` of the clients."""

    @overload
    def __call__(
        self,
        topic_id: Topic[T],
        *payloads: T | Outgoing,
        attributes: Mapping[str, str] | None = None,
        ordering_key: str | None = None,
        deliver_at: datetime | None = None,
        delay_seconds: int | None = None,
        ttl_seconds: int | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Result_co: ...
    @overload
    def __call__(
        self,
        topic_id: str,
        *payloads: Payload | Outgoing,
        attributes: Mapping[str, str] | None = None,
        ordering_key: str | None = None,
        deliver_at: datetime | None = None,
        delay_seconds: int | None = None,
        ttl_seconds: int | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Result_co: ...


class PublishOne(Protocol[Result_co]):
    """`publish` of the publishers."""

    @overload
    def __call__(
        self,
        topic_id: Topic[T],
        payload: T | Outgoing,
        attributes: Mapping[str, str] | None = None,
        *,
        ordering_key: str | None = None,
    ) -> Result_co: ...
    @overload
    def __call__(
        self,
        topic_id: str,
        payload: Payload | Outgoing,
        attributes: Mapping[str, str] | None = None,
        *,
        ordering_key: str | None = None,
    ) -> Result_co: ...


class Publishing(Protocol[Result_co]):
    """A method of a class."""

    def __get__(self, publisher: Any, owner: type | None = None) -> PublishOne[Result_co]: ...


def publishes_one(method: Callable[..., Result]) -> Publishing[Result]:
    return cast("Publishing[Result]", method)
