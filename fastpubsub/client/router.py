"""Subscribers: the functions that process messages, and the subscriptions that they need."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from fastpubsub.client.batches import handler_of
from fastpubsub.client.declaring import Declaration, ScheduleDeclaration, Start
from fastpubsub.client.handlers import Handler, is_async
from fastpubsub.client.layers import Middleware
from fastpubsub.client.options import Exceptions, Once, Options
from fastpubsub.client.topics import AnyTopic, Topic, as_topic
from fastpubsub.models import CatchUp

Function = TypeVar("Function", bound=Callable[..., Any])
MiddlewareFunction = TypeVar("MiddlewareFunction", bound=Middleware)


@dataclass(frozen=True, slots=True)
class Registration:
    """A subscriber as it was written: None is the worker's default."""

    subscription_id: str
    handler: Handler
    declaration: Declaration | None
    concurrency: int | None
    lease_seconds: int | None
    ordered: bool = False
    middlewares: tuple[Middleware, ...] = ()
    schedule: ScheduleDeclaration | None = None
    """What publishes its messages."""


class Router:
    """The subscribers of a module; `include_router` of a worker, a bus or another router adds them."""

    def __init__(self) -> None:
        self._registrations: list[Registration] = []
        self._middlewares: list[Middleware] = []
        self._routers: list[Router] = []

    def subscriber(
        self,
        subscription_id: str,
        *,
        topic: AnyTopic | None = None,
        filter: Mapping[str, Any] | None = None,
        max_delivery_attempts: int | None = None,
        backoff_min_seconds: int | None = None,
        backoff_max_seconds: int | None = None,
        backoff_jitter: float | None = None,
        ack_deadline_seconds: int | None = None,
        max_in_flight: int | None = None,
        rate_limit: float | None = None,
        dead_letter_topic: str | None = None,
        expire_after_seconds: int | None = None,
        on_expired: Literal["drop", "dead_letter"] | None = None,
        on_dead_letter: Literal["continue", "hold"] | None = None,
        max_backlog: int | None = None,
        on_full: Literal["reject", "drop_oldest", "dead_letter"] | None = None,
        fair_by: str | None = None,
        ordered: bool = False,
        start_from: Start | None = None,
        fork_of: str | None = None,
        concurrency: int | None = None,
        lease_seconds: int | None = None,
        timeout_seconds: float | None = None,
        retry_on: Exceptions = (),
        reject_on: Exceptions = (),
        publish_to: AnyTopic | None = None,
        once: Once | None = None,
        batch_size: int | None = None,
    ) -> Callable[[Function], Function]:
        """Registers the function that processes the messages of a subscription.

        It is called with the payload as its annotation says, and with the message when it has an argument annotated
        `Message` or `Delivery`. `lease_seconds` is how long each extension of a lease lasts, by default the deadline of
        the subscription.

        With `topic`, the topic and the subscription are created at the start, and given settings that differ are
        changed; a change that would lose messages raises `AlreadyExists` instead. Settings that are not given may be
        anything, `{}` is no filter, and `start_from` and `fork_of` count only at the creation. With `ordered` the
        function is called for one message, or one batch, at a time: give it also when others create the subscription.

        After `timeout_seconds` an `async def` function is cancelled, and its message comes again. Exceptions of
        `retry_on` let it come again, and those of `reject_on` make it a dead letter, without a traceback in the log.
        What the function returns is published to `publish_to`, before its message is settled: None is nothing, a list
        several payloads. `once` is `fastpubsub.integrations.sqlalchemy.once(get_session)`: a message that was done in a
        transaction of that session does not reach the function again.

        A function with an argument that is a `list[Order]`, or a `list[Message]`, is called with up to `batch_size`
        messages at once, 100 by default; they have one outcome.
        """
        settings = {
            "filter": filter,
            "max_delivery_attempts": max_delivery_attempts,
            "backoff_min_seconds": backoff_min_seconds,
            "backoff_max_seconds": backoff_max_seconds,
            "backoff_jitter": backoff_jitter,
            "ack_deadline_seconds": ack_deadline_seconds,
            "max_in_flight": max_in_flight,
            "rate_limit": rate_limit,
            "dead_letter_topic": dead_letter_topic,
            "expire_after_seconds": expire_after_seconds,
            "on_expired": on_expired,
            "on_dead_letter": on_dead_letter,
            "max_backlog": max_backlog,
            "on_full": on_full,
            "fair_by": fair_by,
            "ordered": ordered or None,
            "start_from": start_from,
            "fork_of": fork_of,
        }
        if ordered and concurrency not in (None, 1):
            raise TypeError(
                f"subscriber {subscription_id}: an ordered one does one thing at a time: leave concurrency out"
            )
        options = Options(retry_on, reject_on, timeout_seconds, publish_to, once, batch_size)
        declaration = _declaration(subscription_id, topic, settings)

        def register(function: Function) -> Function:
            handler = handler_of(function, options)
            registration = Registration(subscription_id, handler, declaration, concurrency, lease_seconds, ordered)
            self._registrations.append(registration)
            return function

        return register

    def every(
        self,
        when: str | int,
        *,
        tz: str | None = None,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        catch_up: CatchUp = "once",
        max_delivery_attempts: int | None = None,
        ack_deadline_seconds: int | None = None,
        timeout_seconds: float | None = None,
        retry_on: Exceptions = (),
        reject_on: Exceptions = (),
        once: Once | None = None,
    ) -> Callable[[Function], Function]:
        """Registers a function that is called again and again, once each time, however many processes there are.

        `when` is a cron expression such as "0 9 * * MON-FRI", in the time zone `tz` ("Europe/Berlin"; UTC by default),
        or a number of seconds. The function may take the payload, a message, dependencies, or nothing. When it fails
        its message comes again, as for any subscriber.

        At the start a topic, its schedule and its subscription are created, all three with the name of the function, or
        with `name`, and brought in line when they differ. `catch_up` says what happens to times at which no server ran:
        "once", "all" or "none". The other arguments are those of `subscriber`.
        """
        times = {"interval_seconds": when} if isinstance(when, int) else {"cron": when, "time_zone": tz or "UTC"}
        if isinstance(when, int) and tz is not None:
            raise TypeError("a number of seconds has no time zone: leave tz out, or give a cron expression")
        settings = {"max_delivery_attempts": max_delivery_attempts, "ack_deadline_seconds": ack_deadline_seconds}
        options = Options(retry_on, reject_on, timeout_seconds, once=once, may_take_nothing=True)

        def register(function: Function) -> Function:
            id_ = name or getattr(function, "__name__", "")
            if not id_:
                raise TypeError("this function has no name: give name=")
            schedule = ScheduleDeclaration(id_, id_, {"payload": payload or {}, "catch_up": catch_up, **times})
            handler, declaration = handler_of(function, options), _declaration(id_, id_, settings)
            self._registrations.append(Registration(id_, handler, declaration, None, None, schedule=schedule))
            return function

        return register

    def middleware(self, function: MiddlewareFunction) -> MiddlewareFunction:
        """Registers a function that runs around every handler here: `async def middleware(message, call_next)`.

        It returns what `await call_next()` returns, sees what that raises, and may do either in its place. The first
        one is the outermost. A payload that does not match its annotation is rejected before. For a batch the message
        is a list of them.
        """
        if not is_async(function):
            raise TypeError("a middleware is an `async def` function of a message and `call_next`")
        self._middlewares.append(function)
        return function

    def include_router(self, router: "Router") -> None:
        """Adds the subscribers of a router, including those that are registered later."""
        if self in router.routers():
            raise ValueError("a router cannot include itself")
        self._routers.append(router)

    def routers(self) -> "Iterator[Router]":
        yield self
        for router in self._routers:
            yield from router.routers()

    def registrations(self) -> Iterator[Registration]:
        for registration in self._registrations:
            yield replace(registration, middlewares=(*self._middlewares, *registration.middlewares))
        for router in self._routers:
            for registration in router.registrations():
                yield replace(registration, middlewares=(*self._middlewares, *registration.middlewares))


def _declaration(subscription_id: str, topic: AnyTopic | None, settings: Mapping[str, Any]) -> Declaration | None:
    given = {name: value for name, value in settings.items() if value is not None}
    if topic is not None:
        return Declaration(subscription_id, as_topic(topic), given)
    if given.keys() - {"ordered"}:
        raise TypeError(f"subscriber {subscription_id}: settings of a subscription need its topic: give topic=")
    return None


def topics_of(registrations: list[Registration]) -> list[Topic[Any]]:
    declared = [one.declaration.topic for one in registrations if one.declaration is not None]
    results = [one.handler.publish_to for one in registrations]
    return [*declared, *(as_topic(topic) for topic in results if topic is not None)]
