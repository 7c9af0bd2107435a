"""A function that processes messages: what it takes is read from its annotations."""

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import to_json

from fastpubsub.client.deliveries import ACK, NACK, Delivery, Outcome, Reject, Retry, outcome_of, reject
from fastpubsub.models import Message

logger = logging.getLogger("fastpubsub.client")

MAX_ERRORS = 5
AS_IT_IS = (inspect.Parameter.empty, Any, dict, dict[str, Any])
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Handler:
    """Calls `function(payload)`, `function(payload, message)`, `function(message)`: found out from annotations.

    A payload that does not fit its annotation is rejected with what does not fit. Plain functions run in threads.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - of the object, not whether there is one
        )
        self._wants_message, annotations = self._read_signature()
        self._takes_payload = bool(annotations)
        self._adapter = self._make_adapter(annotations[0]) if annotations else None

    def _read_signature(self) -> tuple[list[bool], list[Any]]:
        """For each argument whether it is the message, and the annotation of the payload if it is taken."""
        try:
            parameters = inspect.signature(self._function, eval_str=True).parameters.values()
        except NameError as error:
            raise TypeError(f"{self.name}: {error}; its annotations must be names of its module") from None
        required = [p for p in parameters if p.kind in POSITIONAL and (p.default is p.empty)]
        wants_message = [inspect.isclass(p.annotation) and issubclass(p.annotation, Message) for p in required]
        payloads = [p.annotation for p, is_message in zip(required, wants_message, strict=True) if not is_message]
        if not required or len(payloads) > 1 or sum(wants_message) > 1:
            raise TypeError(
                f"{self.name} takes a payload, a message, or both: annotate the payload with a Pydantic model or dict, "
                "and the message with fastpubsub.client.Message"
            )
        return wants_message, payloads

    def _make_adapter(self, annotation: Any) -> TypeAdapter[Any] | None:
        if annotation in AS_IT_IS:
            return None
        try:
            return TypeAdapter(annotation)
        except PydanticUserError as error:
            raise TypeError(f"{self.name}: Pydantic cannot read a payload as {annotation}: {error}") from None

    async def __call__(self, delivery: Delivery, threads: Executor | None) -> Outcome:
        """Raises nothing but a cancellation."""
        try:
            arguments = self._arguments(delivery)
        except ValidationError as error:
            reason = _explain(error)
            logger.warning("a message is rejected: %s: %s", reason, _names(delivery))
            return reject(reason)
        try:
            await self._call(arguments, threads)
        except (Retry, Reject) as error:
            logger.info("%s raised %s(%s): %s", self.name, type(error).__name__, error, _names(delivery))
            return outcome_of(error)
        except Exception:
            logger.exception("%s failed: %s", self.name, _names(delivery))
            return NACK
        return ACK

    def _arguments(self, delivery: Delivery) -> list[Any]:
        payload: Any = delivery.payload
        if self._adapter is not None:
            # As JSON, so that a strict model takes a date; numbers that are no float stay what they are.
            payload = self._adapter.validate_json(to_json(payload, inf_nan_mode="constants"))
        return [delivery if is_message else payload for is_message in self._wants_message]

    async def _call(self, arguments: list[Any], threads: Executor | None) -> None:
        if self.is_async:
            await self._function(*arguments)
        else:
            context = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(threads, lambda: context.run(self._function, *arguments))


def _explain(error: ValidationError) -> str:
    """Without the input: a reason is shown to more people than a payload."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    sentences = [f"{'.'.join(str(part) for part in one['loc']) or 'payload'}: {one['msg']}" for one in errors]
    more = f"; and {len(sentences) - MAX_ERRORS} more" if len(sentences) > MAX_ERRORS else ""
    return f"the payload does not fit {error.title}: " + "; ".join(sentences[:MAX_ERRORS]) + more


def _names(delivery: Delivery) -> str:
    """Never its payload."""
    ids = f"subscription_id={delivery.subscription_id} message_id={delivery.id}"
    return f"{ids} delivery_attempts={delivery.delivery_attempts}"
