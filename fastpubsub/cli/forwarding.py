"""Pulls messages, posts each of them, and settles it by the answer."""

import json
import math
import time

import msgspec

from fastpubsub.cli.connection import Trouble, explained
from fastpubsub.cli.exits import note
from fastpubsub.cli.interrupts import Interrupts
from fastpubsub.cli.messages import MAX_WAIT_SECONDS
from fastpubsub.cli.output import Output, is_read
from fastpubsub.cli.posting import Posted, Poster
from fastpubsub.cli.records import Record, checked, items
from fastpubsub.client import requests
from fastpubsub.client.clients import Client
from fastpubsub.client.deliveries import Outcome
from fastpubsub.client.errors import BusError
from fastpubsub.client.pulling import PASSING
from fastpubsub.models import Message
from fastpubsub.push.formats import PushedMessage

MARGIN_SECONDS = 5
"""That a message is held longer than its answer may take."""

IDLE_SECONDS = 1.0
"""Between pulls that are answered empty before their time, as by a server that is stopping."""

LONGEST_PAUSE_SECONDS = 5.0


class Forwarding:
    """One message after the other, so that no more than one is given back when it ends."""

    def __init__(
        self, client: Client, subscription_id: str, poster: Poster, output: Output, interrupts: Interrupts
    ) -> None:
        self._client = client
        self._subscription_id = subscription_id
        self._poster = poster
        self._output = output
        self._interrupts = interrupts
        self._trouble = Trouble()
        self._unreachable = 0

    def run(self) -> None:
        """Through all trouble that passes, once it has worked; until nobody reads any more."""
        while is_read():
            started = time.monotonic()
            try:
                taken = self._pull()
                self._trouble.is_over()
                for payload, message in taken:
                    self._take(payload, message)
            except PASSING as error:
                self._trouble.wait(error)
                continue
            if not taken and time.monotonic() - started < IDLE_SECONDS:
                time.sleep(IDLE_SECONDS)

    def _pull(self) -> list[tuple[bytes, Message]]:
        """With payloads as they were published."""
        asked = requests.pull(self._subscription_id, batch_size=1, wait_seconds=MAX_WAIT_SECONDS)
        answer, messages = self._client.send(checked(asked))
        raw = [msgspec.json.decode(one.text, type=dict[str, msgspec.Raw]) for one in items(answer)]
        return [(bytes(one["payload"]), message) for one, message in zip(raw, messages, strict=True)]

    def _take(self, payload: bytes, message: Message) -> None:
        try:
            self._hold(message)
            posted = self._poster.post(pushed(payload, message))
        except BaseException:
            self._give_back(message)
            raise
        with self._interrupts.deferred():
            try:
                self._settle(message, posted)
            finally:
                self._output.rows([self._line(message, posted)])
        self._pause(posted)

    def _hold(self, message: Message) -> None:
        """As long as the answer may take."""
        seconds = math.ceil(self._poster.timeout_seconds) + MARGIN_SECONDS
        if message.lease_seconds < seconds:
            self._client.send(requests.extend(self._subscription_id, [message.ack_id], seconds=seconds))

    def _give_back(self, message: Message) -> None:
        """While leaving, so no error here may delay it."""
        try:
            with self._interrupts.deferred():
                self._client.send(requests.nack(self._subscription_id, [message.ack_id], delay_seconds=0))
        except BusError as error:
            note(f"fastpubsub: {explained(error)}; message {message.id} comes again after its ack deadline")

    def _settle(self, message: Message, posted: Posted) -> None:
        outcome = Outcome(posted.outcome.does, posted.outcome.hold_seconds, posted.outcome.reason or "")
        settled = self._client.send(outcome.request(self._subscription_id, [message.ack_id]))
        if settled.gone or settled.stale:
            note(f"fastpubsub: too late to settle message {message.id}, which will be delivered again")

    def _line(self, message: Message, posted: Posted) -> Record:
        exact = f"{posted.at:%Y-%m-%dT%H:%M:%S.%f}Z"
        shown = {
            "at": exact if self._output.as_json else f"{posted.at.astimezone():%H:%M:%S}",
            "status": posted.answer and posted.answer.status,
            "milliseconds": posted.milliseconds,
            "id": str(message.id),
            "attempt": message.delivery_attempts,
            "outcome": posted.outcome.does,
            "said": posted.said,
        }
        return Record(json.dumps(shown).encode())

    def _pause(self, posted: Posted) -> None:
        """The message comes again at once when nothing was there to take it."""
        self._unreachable = self._unreachable + 1 if posted.outcome.does == "return" else 0
        if self._unreachable:
            time.sleep(min(2 ** (self._unreachable - 2), LONGEST_PAUSE_SECONDS))


def pushed(payload: bytes, message: Message) -> PushedMessage:
    return PushedMessage(
        str(message.id),
        message.subscription_id,
        message.delivery_attempts,
        message.created_at,
        payload,
        None if message.attributes is None else json.dumps(message.attributes).encode(),
        message.ordering_key,
    )
