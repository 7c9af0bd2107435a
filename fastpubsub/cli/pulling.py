"""Pulls to standard output. A message is acked after it is written; unwritten ones are given back."""

import time
from typing import TYPE_CHECKING

from fastpubsub.cli.connection import Trouble, explained
from fastpubsub.cli.exits import counted, note
from fastpubsub.cli.interrupts import Interrupts
from fastpubsub.cli.output import Output, is_read
from fastpubsub.cli.records import Record, several

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client

AT_ONCE = 100
IDLE_SECONDS = 1.0
"""Between pulls that are answered empty before their time, as by a server that is stopping."""


class Pulling:
    def __init__(
        self, client: "Client", subscription_id: str, output: Output, interrupts: Interrupts, ack: bool, wait: int
    ) -> None:
        self._client = client
        self._subscription_id = subscription_id
        self._output = output
        self._interrupts = interrupts
        self._ack = ack
        self._wait = wait
        self._trouble = Trouble()

    def take(self, limit: int) -> None:
        """Yields messages until there are so many, or none is left."""
        while limit > 0 and (batch := self._pull(min(limit, AT_ONCE))):
            self._hand_out(batch)
            self._wait = 0
            limit -= len(batch)

    def follow(self, limit: int | None) -> None:
        """Through all trouble that passes, once it has worked; until there are so many, or nobody reads any more."""
        from fastpubsub.client.pulling import PASSING

        while (limit is None or limit > 0) and is_read():
            started = time.monotonic()
            try:
                batch = self._pull(AT_ONCE if limit is None else min(limit, AT_ONCE))
                self._trouble.is_over()
                self._hand_out(batch)
            except PASSING as error:
                self._trouble.wait(error)
                continue
            limit = None if limit is None else limit - len(batch)
            if not batch and time.monotonic() - started < IDLE_SECONDS:
                time.sleep(IDLE_SECONDS)

    def _pull(self, size: int) -> list[Record]:
        from fastpubsub.client import requests

        return self._client.send(
            several(requests.pull(self._subscription_id, batch_size=size, wait_seconds=self._wait))
        )

    def _hand_out(self, batch: list[Record]) -> None:
        written = 0
        try:
            for record in batch:
                self._output.rows([record])
                written += 1
        except BaseException:
            self._leave(batch[:written], batch[written:])
            raise
        with self._interrupts.deferred():
            self._ack_written(batch)

    def _leave(self, written: list[Record], unwritten: list[Record]) -> None:
        """Gives messages back while leaving, so no error here may delay it."""
        from fastpubsub.client import requests
        from fastpubsub.client.errors import BusError

        try:
            with self._interrupts.deferred():
                self._client.send(requests.nack(self._subscription_id, _ack_ids(unwritten), delay_seconds=0))
                self._ack_written(written)
        except BusError as error:
            note(f"fastpubsub: {explained(error)}; pulled messages come again after their ack deadline")

    def _ack_written(self, written: list[Record]) -> None:
        from fastpubsub.client import requests

        if self._ack and written:
            settled = self._client.send(requests.ack(self._subscription_id, _ack_ids(written)))
            if late := len(settled.gone) + len(settled.stale):
                note(f"fastpubsub: too late to acknowledge {counted(late, 'message')}, which will be delivered again")


def _ack_ids(records: list[Record]) -> list[str]:
    return [record.fields["ack_id"] for record in records]
