"""A function that processes several messages of a subscription at once."""

from collections.abc import Callable
from typing import Any

from fastpubsub.client.deliveries import ACK, Delivery, Outcome
from fastpubsub.client.handlers import Handler
from fastpubsub.client.options import Options
from fastpubsub.client.signatures import Signature
from fastpubsub.client.threads import Threads


def handler_of(function: Callable[..., Any], options: Options) -> Handler:
    """One for batches when the function takes lists."""
    handler = Handler(function, options)
    if handler.batch_size is not None:
        _refuse_what_needs_one(handler.name, handler.signature, options)
    return handler


def _refuse_what_needs_one(name: str, signature: Signature, options: Options) -> None:
    if options.publish_to is not None:
        raise TypeError(
            f"{name}: publish_to needs a function of one message: a batch that comes again has other messages, so its "
            "result would be published twice. Publish in the function, with idempotency keys of your own"
        )
    if options.once is not None and signature.message_type is Delivery:
        raise TypeError(
            f"{name}: once remembers every message of a batch when its transaction commits, so none can be settled "
            "apart: take list[Message] instead of list[Delivery]"
        )


async def handle(handler: Handler, deliveries: list[Delivery], threads: Threads | None) -> list[Outcome]:
    """Returns the outcome of each. A payload that does not fit is rejected alone; raises nothing."""
    read = [handler.read(delivery) for delivery in deliveries]
    fit = [(payload, one) for (payload, refusal), one in zip(read, deliveries, strict=True) if refusal is None]
    outcome = ACK
    if fit:
        outcome = await handler.work([payload for payload, _ in fit], [one for _, one in fit], threads)
    return [refusal or outcome for _, refusal in read]
