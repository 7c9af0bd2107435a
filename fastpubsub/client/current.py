"""What the function that runs here works on, for the records of its log."""

import logging
import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeAlias

from fastpubsub.client.deliveries import Delivery

Work: TypeAlias = Delivery | list[Delivery]

TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

current: ContextVar[Work | None] = ContextVar("current", default=None)


class MessageFilter(logging.Filter):
    """Gives the records of a worker's functions `message_id`, `subscription_id` and `trace_id`; others have empty ones.

    The trace is the one that the message carries, or the one of the present span after `instrument` of
    `fastpubsub.integrations.opentelemetry`. In a batch there is no `message_id`.

    Add it to a handler of `logging`, and name them in its format: `%(message_id)s`.
    """

    span_trace: Callable[[], str] = staticmethod(lambda: "")
    """Returns the trace of the present span."""

    def filter(self, record: logging.LogRecord) -> bool:
        work = current.get()
        one = work if isinstance(work, Delivery) else None
        record.message_id = "" if one is None else str(one.id)
        record.subscription_id = "" if not work else (one or work[0]).subscription_id  # type: ignore[index]
        record.trace_id = self.span_trace() or ("" if one is None else carried_trace(one))
        return True


def carried_trace(delivery: Delivery) -> str:
    found = TRACEPARENT.fullmatch((delivery.attributes or {}).get("traceparent", ""))
    return found[1] if found else ""
