"""Publishes one batch after the other, and says exactly how far it came."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastpubsub.cli.connection import explained
from fastpubsub.cli.exits import FAILED, INTERRUPTED, WRONG_USAGE, counted, fail, printable
from fastpubsub.cli.lines import BadLineError, Line, batches
from fastpubsub.cli.output import write

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client
    from fastpubsub.client.errors import BusError
    from fastpubsub.client.requests import Encoded

_WHICH = re.compile(r"\bmessage (\d+)\b")


@dataclass(frozen=True)
class Source:
    """`again` is the command that goes on after a line of it."""

    kind: str
    name: str = ""
    again: str = ""

    def place(self, number: int) -> str:
        return f"{self.kind} {number}{f' of {self.name}' if self.name else ''}"


class LinePublisher:
    def __init__(
        self,
        client: "Client",
        topic_id: str,
        message: "Encoded",
        key: str | None,
        print_ids: bool,
    ) -> None:
        """`message`: what all of them have in common."""
        self._client = client
        self._topic_id = topic_id
        self._message = message
        self._key = key
        self._print_ids = print_ids
        self._last = 0
        self._sending: list[Line] = []
        self.published = 0

    def run(self, source: Source, incoming: Iterable[Line | None], show: Callable[[int], None]) -> None:
        """`show` hears how many are published by now."""
        self._last = 0
        self._sending = []
        with self._told(source):
            for batch in batches(incoming):
                self._sending = batch
                self._send(batch)
                self._sending = []
                show(self.published)

    def _send(self, batch: list[Line]) -> None:
        """Halves, where the server takes less at once than this."""
        from fastpubsub.client.errors import TooLarge
        from fastpubsub.client.exchange import Policy
        from fastpubsub.client.requests import publish_encoded

        messages = [replace(self._message, payload=line.text) for line in batch]
        request = publish_encoded(self._topic_id, messages, self._key)
        try:
            # What has worked once is worth more patience.
            ids = self._client.send(request, Policy() if self.published else None)
        except TooLarge:
            if len(batch) == 1 or self._key is not None:
                raise
            middle = len(batch) // 2
            self._send(batch[:middle])
            self._send(batch[middle:])
            return
        self.published += len(ids)
        self._last = batch[-1].number
        self._tell(ids)

    def _tell(self, ids: list[str]) -> None:
        if self._print_ids:
            try:
                write("".join(f'{{"id":"{one}"}}\n' for one in ids).encode())
            except BrokenPipeError:
                self._print_ids = False  # the messages matter more than the reader of this text

    @contextmanager
    def _told(self, source: Source) -> Iterator[None]:
        from fastpubsub.client.errors import BusError, Refused

        try:
            yield
        except BadLineError as error:
            reason = f"{source.place(error.number)} {error.reason}"
            fail(f"{reason}. {self._so_far(source)}", WRONG_USAGE if source.kind == "argument" else FAILED)
        except BusError as error:
            doubt = "" if isinstance(error, Refused) else self._in_doubt(source)
            fail(f"{refusal(error, source, self._unsent())}. {self._so_far(source)}{doubt}", FAILED)
        except KeyboardInterrupt:
            fail(f"interrupted. {self._so_far(source)}{self._in_doubt(source)}", INTERRUPTED)

    def _unsent(self) -> list[Line]:
        return [line for line in self._sending if line.number > self._last]

    def _in_doubt(self, source: Source) -> str:
        unsent = self._unsent()
        if not unsent:
            return ""
        return f"; but {source.place(unsent[0].number)} to {unsent[-1].number} were on their way, and may be stored"

    def _so_far(self, source: Source) -> str:
        if not self.published:
            return "Nothing was published"
        done = f"{counted(self.published, 'message')} {'was' if self.published == 1 else 'were'} published"
        if not self._last:
            return f"{done} before, and nothing of this batch"
        done += f", up to {source.place(self._last)}, and nothing after it"
        again = source.again.format(next=self._last + 1)
        return f"{done}; after you correct it, continue with: {again}" if again else done


def refusal(error: "BusError", source: Source, batch: list[Line]) -> str:
    """Repeats the error of the server, and adds the line, which the server cannot know."""

    def place(match: re.Match[str]) -> str:
        index = int(match[1])
        return source.place(batch[index].number) if index < len(batch) else match[0]

    return _WHICH.sub(place, explained(error), count=1).rstrip(".")


def resume(topic_id: str, path: str) -> str:
    """Returns the command to continue with, for a path and a topic without special characters; `{next}` is the line."""
    plain = re.fullmatch(r"[\w./+-]+", path) and re.fullmatch(r"[\w.-]+", topic_id)
    return f"tail -n +{{next}} {printable(path)} | fastpubsub publish {topic_id} -" if plain else ""
