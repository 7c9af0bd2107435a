"""A function that processes messages: what it takes is read from its annotations."""

import asyncio
import concurrent.futures
import inspect
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import to_json

from fastpubsub.client.connections import AsyncConnection
from fastpubsub.client.current import current
from fastpubsub.client.decimals import has_decimals
from fastpubsub.client.deliveries import (
    ACK,
    Delivery,
    Outcome,
    Reject,
    Retry,
    failed,
    hold_of,
    outcome_of,
    reject,
)
from fastpubsub.client.dependencies import Solver
from fastpubsub.client.layers import (
    SESSION,
    Call,
    Deliveries,
    Middleware,
    TimeLimit,
    Work,
    check_middlewares,
    limited,
    publishing,
    with_dependencies,
    within,
)
from fastpubsub.client.options import DEFAULT, Options
from fastpubsub.client.pulling import MAX_BATCH
from fastpubsub.client.requests import as_reason
from fastpubsub.client.signatures import EMPTY, Dependency, Injected, Signature
from fastpubsub.client.threads import Threads
from fastpubsub.client.tracebacks import traceback_of

logger = logging.getLogger("fastpubsub.client")

MAX_ERRORS = 5
AS_IT_IS = (EMPTY, Any, dict, dict[str, Any])


class Handler:
    """Calls `function(payload)`, `function(payload, message)`, `function(message)`: found out from annotations.

    A payload that does not fit its annotation is rejected with what does not fit. Plain functions run in threads.
    """

    def __init__(self, function: Callable[..., Any], options: Options = DEFAULT) -> None:
        self.function = function
        self._options = options
        self._call: Call | None = None
        """With what stands around the function, if there is something."""
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self._refuse_what_never_runs()
        self.is_async = is_async(function)
        self.publish_to = options.publish_to
        if options.timeout_seconds is not None and not self.is_async:
            raise TypeError(f"{self.name} runs in a thread, which cannot be ended: a time limit needs `async def`")
        self.signature = Signature(self.name, function, may_take_nothing=options.may_take_nothing)
        payload = self.signature.payload
        self.batch_size = self._batch_size()
        self.payload_type = None if payload is None or payload.annotation in AS_IT_IS else payload.annotation
        self.takes_payload_only = not self.signature.takes_message and not self.signature.injected
        self._adapter = None if self.payload_type is None else self._make_adapter(self.payload_type)
        self.wants_decimals = self._adapter is not None and has_decimals(self._adapter.core_schema)

    def _refuse_what_never_runs(self) -> None:
        if inspect.isclass(self.function):
            raise TypeError(f"{self.name} is a class: subscribe a function, a method, or an instance of the class")
        if _is(inspect.isgeneratorfunction, self.function) or _is(inspect.isasyncgenfunction, self.function):
            raise TypeError(f"{self.name} is a generator, which would never run: a handler must not yield")

    def _batch_size(self) -> int | None:
        """None without batches."""
        given = self._options.batch_size
        if given is not None and not self.signature.is_batch:
            raise TypeError(f"{self.name}: batch_size needs a function that takes a list, such as list[Order]")
        return (given or MAX_BATCH) if self.signature.is_batch else None

    def within(self, connection: AsyncConnection, solver: Solver, middlewares: Sequence[Middleware] = ()) -> "Handler":
        """A copy that also does what was asked for besides calling the function."""
        options = self._options
        check_middlewares(self.name, middlewares, is_batch=self.signature.is_batch)
        call: Call = self._invoke
        if options.publish_to is not None:
            call = publishing(call, connection, options.publish_to)
        if injected := self._injected():
            solve = solver(self.name, injected, self.signature.is_batch)
            call = with_dependencies(call, solve, options.once)
        if options.timeout_seconds is not None:
            call = limited(call, options.timeout_seconds)
        call = within(call, middlewares)
        handler = copy(self)
        handler._call = None if call == self._invoke else call  # noqa: SLF001 - of the same class
        handler.takes_payload_only = self.takes_payload_only and not middlewares  # which get messages as they are
        return handler

    def _injected(self) -> list[Injected]:
        once = self._options.once
        session = [] if once is None else [Injected(SESSION, Any, Dependency(once.dependency))]
        return [*self.signature.injected, *session]

    def _make_adapter(self, annotation: Any) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(annotation)
        except PydanticUserError as error:
            raise TypeError(f"{self.name}: Pydantic cannot read a payload as {annotation}: {error}") from None

    async def __call__(self, delivery: Delivery, threads: Threads | None) -> Outcome:
        """Raises nothing, whatever the function does, including a cancellation. A plain function needs `threads`."""
        payload, refusal = self.read(delivery)
        if refusal is not None:
            return refusal
        result = await self._run(payload, delivery, threads)  # once more here, which saves every message a coroutine
        return self._raised(result, delivery) if isinstance(result, BaseException) else ACK

    def read(self, delivery: Delivery) -> tuple[Any, Outcome | None]:
        """Returns the payload, or what becomes of a message with one that does not fit."""
        try:
            return self._payload(delivery), None
        except ValidationError as error:
            return None, self._rejected(_explain(error), delivery)
        except BaseException as error:  # noqa: BLE001 - of a validator of theirs
            return None, self._failed(error, delivery)

    async def work(self, payload: Any, delivery: Deliveries, threads: Threads | None) -> Outcome:
        """With lists, if the function takes them."""
        result = await self._run(payload, delivery, threads)
        return self._raised(result, delivery) if isinstance(result, BaseException) else ACK

    def _payload(self, delivery: Delivery) -> Any:
        if self._adapter is None:
            return delivery.payload
        hold = hold_of(delivery)
        if hold.is_validated:
            return delivery.payload
        if (exact := hold.exact_payload) is not None:
            with suppress(ValidationError):  # a strict model takes a date only from JSON
                return self._adapter.validate_python(exact)
        # As JSON, so that a strict model takes a date; numbers that are no float stay what they are.
        return self._adapter.validate_json(to_json(delivery.payload, inf_nan_mode="constants"))

    async def _run(self, payload: Any, delivery: Deliveries, threads: Threads | None) -> Any:
        """Returns the function's result, after awaiting it, or the exception that it raised."""
        current.set(delivery)  # in a task of its own
        try:
            if self._call is not None:
                return await self._call(Work(payload, delivery, threads))
            arguments, keywords = self.signature.bind(payload, delivery)
            if threads is None:
                result = await self.function(*arguments, **keywords)
            else:
                result = await threads.run(self.function, *arguments, **keywords)
            return None if result is None else await _awaited(result)
        except BaseException as error:  # noqa: BLE001 - `sys.exit()` in a handler ends no worker
            return error

    async def _invoke(self, work: Work) -> Any:
        """The same for what stands around it, raising."""
        arguments, keywords = self.signature.bind(work.payload, work.delivery)
        if work.threads is None:
            result = await self.function(*arguments, **keywords, **work.values)
        else:
            result = await work.threads.run(self.function, *arguments, **keywords, **work.values)
        result = await _awaited(result)
        if isinstance(result, BaseException):
            raise result
        return result

    def _raised(self, error: BaseException, delivery: Deliveries) -> Outcome:
        is_said = isinstance(error, Retry | Reject)
        if not is_said and not isinstance(error, self._options.expected):
            return self._failed(error, delivery)
        said = f"{self.name} raised {type(error).__name__}({as_reason(error.args[0], '') if error.args else ''})"
        logger.info("%s: %s", said, _names(delivery))
        if not is_said and isinstance(error, self._options.reject_on):
            return reject(error)
        return outcome_of(error)

    def _failed(self, error: BaseException, delivery: Deliveries) -> Outcome:
        if isinstance(error, asyncio.CancelledError):
            logger.warning("%s was cancelled: %s", self.name, _names(delivery))
        elif isinstance(error, TimeLimit):
            logger.error("%s %s: %s", self.name, error, _names(delivery))
        else:
            seen = (type(error), error, traceback_of(error))
            logger.error("%s failed: %s", self.name, _names(delivery), exc_info=seen)
        return failed(error)

    def _rejected(self, reason: str, delivery: Delivery) -> Outcome:
        outcome = reject(reason)
        logger.warning("a message is rejected before %s is called: %s: %s", self.name, outcome.reason, _names(delivery))
        return outcome


def is_async(function: Callable[..., Any]) -> bool:
    return _is(inspect.iscoroutinefunction, function)


def _is(kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Checks a function, a callable object, or the function inside a partial."""
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004 - not whether there is one


async def _awaited(result: Any) -> Any:
    """Awaits a returned awaitable; refuses a generator, which would never run."""
    while True:
        if isinstance(result, concurrent.futures.Future):
            result = asyncio.wrap_future(result)
        if not inspect.isawaitable(result):
            break
        result = await result
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("a handler returned a generator, which would never run")
    return result


def _explain(error: ValidationError) -> str:
    """Leaves out the input: more people see a reason than a payload."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    sentences = [f"{'.'.join(str(part) for part in one['loc']) or 'payload'}: {one['msg']}" for one in errors]
    more = f"; and {len(sentences) - MAX_ERRORS} more" if len(sentences) > MAX_ERRORS else ""
    return f"the payload does not match {error.title}: " + "; ".join(sentences[:MAX_ERRORS]) + more


def _names(delivery: Deliveries) -> str:
    if isinstance(delivery, list):
        return f"subscription_id={delivery[0].subscription_id} messages={len(delivery)} first_id={delivery[0].id}"
    ids = f"subscription_id={delivery.subscription_id} message_id={delivery.id}"
    return f"{ids} delivery_attempts={delivery.delivery_attempts}"
