"""Posts messages as a server pushes them, to an address that whoever runs the command has chosen."""

import asyncio
import ipaddress
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from fastpubsub.push.answers import PushAnswer
from fastpubsub.push.failures import PushFailed, Unreachable
from fastpubsub.push.formats import PushedMessage
from fastpubsub.push.outcomes import Outcome, outcome_of, refusal
from fastpubsub.push.requests import ORIGIN, Place, asks_first, posted, question
from fastpubsub.push.resolver import Resolver
from fastpubsub.push.signing import key_of
from fastpubsub.push.tls import Tls
from fastpubsub.push.wire import Wire

EVERYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
"""The server keeps its pushes to the internet; this is the machine of whoever asks for it."""


@dataclass(frozen=True)
class Posted:
    outcome: Outcome
    answer: PushAnswer | None
    at: datetime
    milliseconds: int

    @property
    def said(self) -> str:
        """The beginning of the answer, or why there is none."""
        return self.outcome.reason or "" if self.answer is None else self.answer.text


class Poster:
    def __init__(self, url: str, form: str, secret: str, timeout_seconds: float) -> None:
        """Raises ValueError for a port that does not exist."""
        self._place = Place(url)
        self._form = form
        self._key = key_of(secret)
        self.timeout_seconds = timeout_seconds
        self._resolver = Resolver(EVERYWHERE)
        self._wire = Wire(self._place.origin, self._resolver, Tls())
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._wire.close()
        self._resolver.close()
        self._runner.close()

    def is_welcome(self) -> bool:
        """Whether a server would push there at all."""
        if not asks_first(self._form):
            return True
        try:
            return refusal(self._send(question(self._place, {})), ORIGIN) is None
        except PushFailed:
            return False

    def post(self, message: PushedMessage) -> Posted:
        started = time.monotonic()
        request = posted(self._place, {}, self._form, [self._key], message, int(time.time()))
        answer = None
        try:
            answer = self._send(request)
            outcome = outcome_of(answer, frozenset(), datetime.now(UTC))
        except Unreachable as error:
            outcome = Outcome("return", is_well=False, reason=str(error))
        except PushFailed as error:
            outcome = Outcome("nack", is_well=False, reason=str(error))
        return Posted(outcome, answer, datetime.now(UTC), int((time.monotonic() - started) * 1000))

    def _send(self, request: bytes) -> PushAnswer:
        return self._runner.run(self._wire.send(request, self.timeout_seconds))
