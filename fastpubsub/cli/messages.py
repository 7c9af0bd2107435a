"""`fastpubsub publish`, `pull` and `tail`."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastpubsub import filters
from fastpubsub.cli.arguments import (
    DelaySeconds,
    DeliverAt,
    ExpiresAt,
    SubscriptionId,
    TopicId,
    TtlSeconds,
    attributes_of,
    json_text,
    text,
)
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import WRONG_USAGE, counted, fail, note, printable
from fastpubsub.cli.output import AsJson, Output

if TYPE_CHECKING:
    from fastpubsub.cli.publishing import LinePublisher

STANDARD_INPUT = "-"
DEFAULT_LIMIT = 10
MAX_WAIT_SECONDS = 20
COLUMNS = ("id", "created_at", "delivery_attempts", "payload")


def publish(
    topic: TopicId,
    payloads: Annotated[
        list[str] | None,
        typer.Argument(metavar="JSON", help="JSON objects, or - to read one per line from standard input."),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", help="A file with one JSON object per line; can be repeated.", exists=True, dir_okay=False
        ),
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option("--attribute", "-a", metavar="NAME=VALUE", help="An attribute of every message; can be repeated."),
    ] = None,
    ordering_key: Annotated[
        str | None,
        typer.Option("--ordering-key", help="The ordering key of every message, 1 to 128 characters.", callback=text),
    ] = None,
    deliver_at: DeliverAt = None,
    delay_seconds: DelaySeconds = None,
    ttl_seconds: TtlSeconds = None,
    expires_at: ExpiresAt = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key", help="Publish nothing if this key was used in the last 24 hours.", callback=text
        ),
    ] = None,
    ids: Annotated[
        bool | None,
        typer.Option(
            "--ids/--no-ids",
            help="Print the message ids. On a terminal they are not printed by default.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Publish JSON objects from arguments, from lines of standard input (-), or from files."""
    from fastpubsub.cli.interrupts import Interrupts
    from fastpubsub.cli.lines import BATCH_BYTES, BATCH_MESSAGES, arguments
    from fastpubsub.cli.publishing import LinePublisher, Source
    from fastpubsub.client.requests import encode

    given, paths = payloads or [], files or []
    from_input = STANDARD_INPUT in given
    if not given and not paths:
        raise typer.BadParameter("give JSON objects, - for standard input, or --file")
    if from_input and len(given) > 1:
        raise typer.BadParameter("- cannot be combined: give - for standard input, or JSON objects")
    if key is not None and (
        from_input or paths or len(given) > BATCH_MESSAGES or sum(map(len, given)) > BATCH_BYTES / 4
    ):
        raise typer.BadParameter("--idempotency-key is only for JSON objects that are given as arguments")
    print_ids = not sys.stdout.isatty() if ids is None else ids
    with connected() as client, Interrupts().installed():
        times = (deliver_at, delay_seconds, ttl_seconds, expires_at)
        message = encode({}, attributes_of(attributes or []), ordering_key, *times)
        publishing = LinePublisher(client, topic, message, key, print_ids)
        if given and not from_input:
            publishing.run(Source("argument"), list(arguments(given)), lambda _done: None)
        if from_input:
            publish_lines(publishing, topic, None)
        for path in paths:
            publish_lines(publishing, topic, path)
    note(f"published {counted(publishing.published, 'message')} to {topic}")


def publish_lines(publishing: "LinePublisher", topic: str, path: Path | None) -> None:
    from fastpubsub.cli.lines import lines
    from fastpubsub.cli.progress import progress
    from fastpubsub.cli.publishing import Source, resume

    with ExitStack() as stack:
        if path is None:
            source, descriptor = Source("line", "standard input"), sys.stdin.fileno()
        else:
            try:
                descriptor = stack.enter_context(path.open("rb", buffering=0)).fileno()
            except OSError as error:
                fail(f"{printable(str(path))}: {error.strerror}", WRONG_USAGE)
            source = Source("line", printable(str(path)), resume(topic, str(path)))
        # The bar would appear in the middle of typed text.
        show = (lambda _done: None) if os.isatty(descriptor) else stack.enter_context(progress("publishing", None))
        publishing.run(source, lines(descriptor), show)


def pull(
    subscription: SubscriptionId,
    limit: Annotated[
        int | None,
        typer.Option(
            "--max",
            "-n",
            help="How many to pull: 10 by default, no limit with --follow.",
            min=1,
            show_default=False,
        ),
    ] = None,
    ack: Annotated[
        bool,
        typer.Option(
            "--ack", help="Acknowledge each message after it is printed. Without it, messages are delivered again."
        ),
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue pulling until Ctrl-C.")] = False,
    wait: Annotated[
        int, typer.Option(metavar="SECONDS", help="How long to wait for messages.", min=0, max=MAX_WAIT_SECONDS)
    ] = 0,
    as_json: AsJson = None,
) -> None:
    """Pull messages and print them. Messages that were not printed are given back."""
    from fastpubsub.cli.interrupts import Interrupts
    from fastpubsub.cli.pulling import Pulling

    output = Output(as_json, *COLUMNS, grows="payload")
    with connected() as client, Interrupts().installed() as interrupts:
        pulling = Pulling(client, subscription, output, interrupts, ack, MAX_WAIT_SECONDS if follow else wait)
        if not follow:
            pulling.take(DEFAULT_LIMIT if limit is None else limit)
            return
        with told_to_end():
            pulling.follow(limit)


def tail(
    topic: TopicId,
    after: Annotated[
        str | None, typer.Option("--from", metavar="ID", help="Start after this message instead of now.", callback=text)
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option(
            "--filter", metavar="JSON", help="""Print only messages that match, such as '{"country": ["BR"]}'."""
        ),
    ] = None,
    as_json: AsJson = None,
) -> None:
    """Print messages as they are published to a topic, until Ctrl-C. Takes no messages from consumers."""
    from fastpubsub.cli.interrupts import Interrupts
    from fastpubsub.cli.tailing import Tailing

    output = Output(as_json, "id", "created_at", "payload", grows="payload")
    wanted = None if filter_ is None else filters.read(json_text(filter_, "--filter"))
    with connected() as client, Interrupts().installed(), told_to_end():
        Tailing(client, topic, output, after, wanted).run()


@contextmanager
def told_to_end() -> Iterator[None]:
    """A signal is how these are meant to end."""
    with suppress(KeyboardInterrupt):
        yield
