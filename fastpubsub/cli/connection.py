"""Connects a command to its server, and explains the refusals of the server."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastpubsub.cli import places
from fastpubsub.cli.commands import in_words_of_options
from fastpubsub.cli.exits import FAILED, INTERRUPTED, WRONG_USAGE, fail, note, printable

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client
    from fastpubsub.client.errors import BusError

HASTY_ATTEMPTS = 4
HASTY_SECONDS = 15.0
"""Somebody sits in front of it and waits to hear that no server runs there."""


@contextmanager
def connected(seconds: float = HASTY_SECONDS, attempts: int = HASTY_ATTEMPTS) -> Iterator["Client"]:
    """Ends the command with one sentence, or without one when nobody reads what it prints any more."""
    from fastpubsub.cli.remembering import RememberingClient
    from fastpubsub.client.connections import Misconfigured
    from fastpubsub.client.errors import BusError, Unauthenticated
    from fastpubsub.client.exchange import Policy

    try:
        client = RememberingClient(Policy(timeout=seconds, attempts=attempts))
    except Misconfigured as error:
        fail(printable(str(error)), WRONG_USAGE)
    try:
        with client:
            yield client
    except BusError as error:
        if isinstance(error, Unauthenticated):
            client.forget()
        fail(explained(error), FAILED)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # The rest of a buffer has nowhere to go, and Python would complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


class Trouble:
    """Reports once that a server went away, and waits for it, unless nothing has worked yet."""

    def __init__(self) -> None:
        self._failures: int | None = None

    def wait(self, error: "BusError") -> None:
        from fastpubsub.client.pulling import pause

        if self._failures is None:
            raise error
        if not self._failures:
            note(f"fastpubsub: {explained(error)}; trying again until it works")
        seconds = pause(self._failures, error)
        self._failures += 1
        time.sleep(seconds)

    @property
    def is_known(self) -> bool:
        """Whether it has been reported, and is not over."""
        return bool(self._failures)

    def is_over(self) -> None:
        if self._failures:
            note("fastpubsub: it works again")
        self._failures = 0


def explained(error: "BusError") -> str:
    """Says what is wrong, why, and the next step."""
    from fastpubsub.client.errors import ConnectionFailed, Refused, ServerError, Unauthenticated, UnexpectedAnswer

    detail = in_words_of_options(error.detail) if isinstance(error, Refused) else str(error)
    sentence = " ".join(printable(detail).split())
    if isinstance(error, ConnectionFailed):
        return f"no answer from {address()} ({sentence}): does a server run there? {whence()} says where it is"
    if isinstance(error, Unauthenticated):
        return (
            f"{sentence}; set FASTPUBSUB_CLIENT_ID and FASTPUBSUB_CLIENT_SECRET to those of a client, or use a context"
        )
    if isinstance(error, UnexpectedAnswer):
        return f"{sentence}; is {address()}, from {whence()}, a fastpubsub server?"
    if isinstance(error, ServerError) and error.request_id:
        return f"{sentence} ({error.request_id})"
    return sentence


def whence() -> str:
    """Where the address is from."""
    return "FASTPUBSUB_URL" if places.in_use is None else f"the context {places.in_use}"


def address() -> str:
    """Returns the address without its password."""
    from fastpubsub.client.connections import DEFAULT_URL, URL

    return places.without_password(os.environ.get(URL) or DEFAULT_URL)
