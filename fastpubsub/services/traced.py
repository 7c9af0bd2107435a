"""Coalesced calls that know the spans of their requests."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context, get_current

from fastpubsub.services.appends import Append, Appended, Appends
from fastpubsub.services.coalescer import Answer, Bounds, Coalescer, Key
from fastpubsub.traces import coalesced, of_message

Request = TypeVar("Request")


class _Sent(NamedTuple):
    context: Context
    request: Any


class TracedCoalescer(Coalescer[Key, Any, Answer]):
    def __init__(
        self,
        call: Callable[[Key, Sequence[Any]], Awaitable[Sequence[Answer]]],
        bounds: Bounds,
        unclaimed: Callable[[Key, Answer], None] | None = None,
        ready: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        async def call_in_trace(key: Key, sent: Sequence[_Sent]) -> Sequence[Answer]:
            with coalesced([one.context for one in sent]):
                return await call(key, [one.request for one in sent])

        super().__init__(call_in_trace, bounds, unclaimed, ready)

    async def submit(self, key: Key, request: Any, *, rows: int = 1, size: int = 0) -> Answer:
        answer = await super().submit(key, _Sent(get_current(), request), rows=rows, size=size)
        link_to_messages(getattr(answer, "claim", answer))
        return answer


class _TracedAppend(Append):
    __slots__ = ("context",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.context = get_current()


class TracedAppends(Appends):
    one: type[Append] = _TracedAppend

    async def _call_together(self, appends: Sequence[Any]) -> list[Appended | None]:
        with coalesced([append.context for append in appends]):
            return await super()._call_together(appends)


def link_to_messages(claim: object) -> None:
    """Links the span of the request to those that published the messages which it gets, if it is one that gets some."""
    span = trace.get_current_span()
    if span.is_recording():
        for attributes in getattr(claim, "attributes", ()):
            published = trace.get_current_span(of_message(attributes)).get_span_context()
            if published.is_valid:
                span.add_link(published)
