"""A function that processes messages: what it takes is read from its annotations."""

import asyncio
import concurrent.futures
import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import to_json

from fastpubsub.client.decimals import has_decimals
from fastpubsub.client.deliveries import (
    ACK,
    NACK,
    Delivery,
    Outcome,
    Reject,
    Retry,
    hold_of,
    outcome_of,
    reject,
)
from fastpubsub.client.requests import as_reason
from fastpubsub.client.signatures import EMPTY, Signature
from fastpubsub.client.threads import Threads

logger = logging.getLogger("fastpubsub.client")

MAX_ERRORS = 5
AS_IT_IS = (EMPTY, Any, dict, dict[str, Any])


class Handler:
    """Calls `function(payload)`, `function(payload, message)`, `function(message)`: found out from annotations.

    A payload that does not fit its annotation is rejected with what does not fit. Plain functions run in threads.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self._refuse_what_never_runs()
        self.is_async = _is(inspect.iscoroutinefunction, function)
        self._signature = Signature(self.name, function)
        payload = self._signature.payload
        self.payload_type = None if payload is None or payload.annotation in AS_IT_IS else payload.annotation
        self.takes_payload_only = not self._signature.takes_message
        self._adapter = None if self.payload_type is None else self._make_adapter(self.payload_type)
        self.wants_decimals = self._adapter is not None and has_decimals(self._adapter.core_schema)

    def _refuse_what_never_runs(self) -> None:
        if inspect.isclass(self._function):
            raise TypeError(f"{self.name} is a class: subscribe a function, a method, or an instance of the class")
        if _is(inspect.isgeneratorfunction, self._function) or _is(inspect.isasyncgenfunction, self._function):
            raise TypeError(f"{self.name} is a generator, which would never run: a handler must not yield")

    def _make_adapter(self, annotation: Any) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(annotation)
        except PydanticUserError as error:
            raise TypeError(f"{self.name}: Pydantic cannot read a payload as {annotation}: {error}") from None

    async def __call__(self, delivery: Delivery, threads: Threads | None) -> Outcome:
        """Raises nothing, whatever the function does, including a cancellation. A plain function needs `threads`."""
        try:
            payload = self._payload(delivery)
        except ValidationError as error:
            return self._rejected(_explain(error), delivery)
        except BaseException as error:  # noqa: BLE001 - of a validator of theirs
            return self._failed(error, delivery)
        result = await self._run(payload, delivery, threads)
        if isinstance(result, BaseException):
            return self._raised(result, delivery)
        return ACK

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

    async def _run(self, payload: Any, delivery: Delivery, threads: Threads | None) -> Any:
        """Returns the function's result, after awaiting it, or the exception that it raised."""
        arguments, keywords = self._signature.bind(payload, delivery)
        try:
            if threads is None:
                result = await self._function(*arguments, **keywords)
            else:
                result = await threads.run(self._function, *arguments, **keywords)
            return None if result is None else await _awaited(result)
        except BaseException as error:  # noqa: BLE001 - `sys.exit()` in a handler ends no worker
            return error

    def _raised(self, error: BaseException, delivery: Delivery) -> Outcome:
        if not isinstance(error, Retry | Reject):
            return self._failed(error, delivery)
        said = f"{self.name} raised {type(error).__name__}({as_reason(error.args[0], '') if error.args else ''})"
        logger.info("%s: %s", said, _names(delivery))
        return outcome_of(error)

    def _failed(self, error: BaseException, delivery: Delivery) -> Outcome:
        if isinstance(error, asyncio.CancelledError):
            logger.warning("%s was cancelled: %s", self.name, _names(delivery))
        else:
            logger.error("%s failed: %s", self.name, _names(delivery), exc_info=error)
        return NACK

    def _rejected(self, reason: str, delivery: Delivery) -> Outcome:
        outcome = reject(reason)
        logger.warning("a message is rejected before %s is called: %s: %s", self.name, outcome.reason, _names(delivery))
        return outcome


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


def _names(delivery: Delivery) -> str:
    ids = f"subscription_id={delivery.subscription_id} message_id={delivery.id}"
    return f"{ids} delivery_attempts={delivery.delivery_attempts}"
