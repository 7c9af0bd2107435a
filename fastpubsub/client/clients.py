"""The clients: each has a connection, and the operations of `requests` as its methods."""

import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from functools import wraps
from inspect import Parameter, signature
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from fastpubsub.client import requests
from fastpubsub.client.connections import AsyncConnection, Connection
from fastpubsub.client.deliveries import Delivery
from fastpubsub.client.following import follow
from fastpubsub.client.iteration import iterate
from fastpubsub.client.publishers import AsyncPublisher, Limits, Publisher
from fastpubsub.client.requests import Request
from fastpubsub.client.typed import Publish
from fastpubsub.models import TopicMessage

P = ParamSpec("P")
T = TypeVar("T")


class Operation(Generic[P, T]):
    """A method of both clients: the function of `requests` that it sends; the asynchronous one is awaited."""

    def __init__(self, build: Callable[P, Request[T]]) -> None:
        self.build = build

        @wraps(build)
        def call(client: "Client | AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Any:
            return client.send(build(*args, **kwargs))

        client = Parameter("client", Parameter.POSITIONAL_ONLY)
        own = signature(build)
        call.__signature__ = own.replace(parameters=[client, *own.parameters.values()])  # type: ignore[attr-defined]
        self._call = call

    @overload
    def __get__(self, client: "Client", owner: type | None = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type | None = None) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: type | None = None) -> Callable[P, Request[T]]: ...
    def __get__(self, client: Any, owner: type | None = None) -> Any:
        return self.build if client is None else MethodType(self._call, client)


class PublishOperation(Operation[..., list[str]]):
    """What a `Topic` takes depends on it, for type checkers."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, client: "Client", owner: type | None = None) -> Publish[list[str]]: ...
        @overload
        def __get__(
            self, client: "AsyncClient", owner: type | None = None
        ) -> Publish[Coroutine[Any, Any, list[str]]]: ...
        @overload
        def __get__(self, client: None, owner: type | None = None) -> Publish[Request[list[str]]]: ...
        def __get__(self, client: Any, owner: type | None = None) -> Any: ...


class Operations:
    publish = PublishOperation(requests.publish)
    pull = Operation(requests.pull)
    ack = Operation(requests.ack)
    nack = Operation(requests.nack)
    reject = Operation(requests.reject)
    extend = Operation(requests.extend)
    settle_and_pull = Operation(requests.settle_and_pull)
    transact = Operation(requests.transact)
    end_waits = Operation(requests.end_waits)
    seek = Operation(requests.seek)
    test_filter = Operation(requests.test_filter)
    test_topic_filter = Operation(requests.test_topic_filter)
    pause = Operation(requests.pause)
    resume = Operation(requests.resume)
    purge = Operation(requests.purge)
    metrics = Operation(requests.metrics)
    list_consumers = Operation(requests.list_consumers)
    overview = Operation(requests.overview)
    history = Operation(requests.history)
    list_changes = Operation(requests.list_changes)
    explain = Operation(requests.explain)
    get_message = Operation(requests.get_message)
    browse = Operation(requests.browse)
    browse_topic = Operation(requests.browse_topic)

    list_dead_letters = Operation(requests.list_dead_letters)
    reprocess_dead_letters = Operation(requests.reprocess_dead_letters)
    purge_dead_letters = Operation(requests.purge_dead_letters)
    list_dead_letter_reasons = Operation(requests.list_dead_letter_reasons)
    create_redrive = Operation(requests.create_redrive)
    list_redrives = Operation(requests.list_redrives)
    get_redrive = Operation(requests.get_redrive)
    cancel_redrive = Operation(requests.cancel_redrive)

    list_delayed = Operation(requests.list_delayed)
    get_delayed = Operation(requests.get_delayed)
    move_delayed = Operation(requests.move_delayed)
    cancel_delayed = Operation(requests.cancel_delayed)
    release_delayed = Operation(requests.release_delayed)
    list_refused = Operation(requests.list_refused)
    publish_refused = Operation(requests.publish_refused)
    purge_refused = Operation(requests.purge_refused)

    create_schedule = Operation(requests.create_schedule)
    get_schedule = Operation(requests.get_schedule)
    list_schedules = Operation(requests.list_schedules)
    update_schedule = Operation(requests.update_schedule)
    pause_schedule = Operation(requests.pause_schedule)
    resume_schedule = Operation(requests.resume_schedule)
    fire_schedule = Operation(requests.fire_schedule)
    delete_schedule = Operation(requests.delete_schedule)

    create_topic = Operation(requests.create_topic)
    get_topic = Operation(requests.get_topic)
    list_topics = Operation(requests.list_topics)
    update_topic = Operation(requests.update_topic)
    delete_topic = Operation(requests.delete_topic)

    create_subscription = Operation(requests.create_subscription)
    ensure_subscription = Operation(requests.ensure_subscription)
    get_subscription = Operation(requests.get_subscription)
    list_subscriptions = Operation(requests.list_subscriptions)
    update_subscription = Operation(requests.update_subscription)
    delete_subscription = Operation(requests.delete_subscription)

    create_client = Operation(requests.create_client)
    get_client = Operation(requests.get_client)
    list_clients = Operation(requests.list_clients)
    update_client = Operation(requests.update_client)
    rotate_client_secret = Operation(requests.rotate_client_secret)
    list_push_attempts = Operation(requests.list_push_attempts)
    get_push_status = Operation(requests.get_push_status)
    rotate_push_secret = Operation(requests.rotate_push_secret)
    test_push = Operation(requests.test_push)
    resend_message = Operation(requests.resend_message)
    revoke_client_secret = Operation(requests.revoke_client_secret)
    delete_client = Operation(requests.delete_client)
    create_token = Operation(requests.create_token)


class Client(Operations, Connection):
    """The synchronous client, safe for several threads. `transport` is httpx's, for a proxy, a socket or a test."""

    def publisher(self, limits: Limits | None = None) -> Publisher:
        """Gathers single messages into batches in the background; close it, or use `with`."""
        return Publisher(self, limits or Limits())


class AsyncClient(Operations, AsyncConnection):
    """The asynchronous client, safe for several tasks of one event loop. `transport` is httpx's."""

    def publisher(self, limits: Limits | None = None) -> AsyncPublisher:
        """Gathers single messages into batches in the background; close it, or use `async with`."""
        return AsyncPublisher(self, limits or Limits())

    def messages(
        self, subscription_id: str, *, prefetch: int = 10, lease_seconds: int | None = None
    ) -> AsyncGenerator[Delivery, None]:
        """Iterates without end: `async for delivery in bus.messages("billing"): async with delivery: ...`.

        Leases are extended while a message waits here and while its `async with` runs. Up to `prefetch` messages wait;
        they are given back when the loop ends.
        """
        return iterate(self, subscription_id, prefetch, lease_seconds)

    def follow(
        self,
        topic_id: str,
        *,
        after: uuid.UUID | str | None = None,
        recent: int = 0,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - as it is called everywhere
    ) -> AsyncGenerator[TopicMessage, None]:
        """Iterates without end over everything published from now on, or after a message; nothing is leased or settled.

        Without `after`, the newest `recent` messages (up to 1,000) come first. With `filter`, only messages that match
        come. A lost connection is opened again and misses nothing that is still kept. Raises `NotFound`
        when the topic is gone.
        """
        return follow(self, topic_id, None if after is None else str(after), recent, filter)
