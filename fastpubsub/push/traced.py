"""Pushes with a span each, in the trace of who published the message."""

from opentelemetry.trace import SpanKind, StatusCode

from fastpubsub.push.formats import PushedMessage
from fastpubsub.push.outcomes import Outcome
from fastpubsub.push.pusher import Pusher
from fastpubsub.traces import injected, of_message, spans


class TracedPusher(Pusher):
    async def _outcome(self, message: PushedMessage) -> Outcome:
        place = self.endpoint.place
        with spans.tracer.start_as_current_span(
            f"push {message.subscription_id}",
            of_message(message.attributes),
            SpanKind.CLIENT,
            {
                "messaging.system": "fastpubsub",
                "messaging.operation.name": "push",
                "messaging.operation.type": "send",
                "messaging.destination.subscription.name": message.subscription_id,
                "messaging.message.id": message.id,
                "messaging.fastpubsub.message.delivery_attempts": message.attempt,
                "server.address": place.origin.host,
                "server.port": place.origin.port,
            },
        ) as span:
            outcome = await super()._outcome(message._replace(trace=injected()))
            span.set_attribute("messaging.fastpubsub.outcome", outcome.does)
            if outcome.does != "ack":
                span.set_status(StatusCode.ERROR, outcome.reason)
            return outcome
