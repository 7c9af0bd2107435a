"""`fastpubsub top`: the subscriptions that have the most to do, drawn again and again."""

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fastpubsub.cli.colors import styled
from fastpubsub.cli.connection import connected, explained
from fastpubsub.cli.looking import looked_at, summary, table_of
from fastpubsub.cli.output import write_text
from fastpubsub.cli.records import Number, pages
from fastpubsub.cli.subscriptions import STATS, OfTopic
from fastpubsub.cli.tables import cropped, member
from fastpubsub.stopping import insisting

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client

MOST = 1000
"""Subscriptions that are compared."""

SHORTEST = 0.5
ATTEMPTS = (5.0, 1)
"""Seconds and attempts for one look; the next one is near."""

BY = {
    "backlog": ("metrics.available", "metrics.delivered"),
    "rate": ("metrics.rates.delivered", "metrics.rates.acked"),
    "dead": ("metrics.dlq",),
    "oldest": ("metrics.oldest_ahead_seconds", "metrics.oldest_waiting_seconds"),
}
FINDINGS = 3
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, END_OF_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
ENDS = ("q", "Q", "\x04", "")
LOOK_SECONDS = 0.2
"""Between two looks at the size of the terminal."""

Sort = Annotated[Literal["backlog", "rate", "dead", "oldest"], typer.Option(help="Which subscriptions come first.")]
Interval = Annotated[float, typer.Option("--interval", "-i", help="Seconds between refreshes.", min=SHORTEST)]
Once = Annotated[bool, typer.Option("--once", help="Show it once, as without a terminal.")]

Frame = list[str]


def top(topic: OfTopic = None, sort: Sort = "backlog", interval: Interval = 2.0, once: Once = False) -> None:
    """Show the busiest subscriptions live, until q or Ctrl-C."""
    is_live = not once and sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    with connected(*ATTEMPTS) as client:

        def draw() -> Frame:
            return frame(client, topic, sort, shutil.get_terminal_size().columns)

        if is_live:
            _live(draw, interval)
        else:
            write_text("".join(f"{line}\n" for line in draw()))


def frame(client: "Client", topic: str | None, sort: str, width: int) -> Frame:
    """As many lines as there are; what does not fit below is left out."""
    from fastpubsub.client import requests

    _, overview = client.send(looked_at())
    found: list[dict[str, Any]] = []
    for page in pages(
        client,
        lambda offset, limit: requests.list_subscriptions(
            topic_id=topic, include_metrics=True, offset=offset, limit=limit
        ),
        MOST,
        0,
    ):
        found += [record.fields for record in page]
    found.sort(key=lambda row: sum(_number(member(row, name)) for name in BY[sort]), reverse=True)
    lines = [*summary(overview, width, FINDINGS), "", *table_of("subscription", STATS, found, width)]
    if len(found) == MOST:
        lines.append(f"These are the first {MOST:,} by id: name a topic with --topic for others.")
    return lines


def _number(value: Any) -> float:
    return float(value) if isinstance(value, Number) else 0.0


def _live(draw: Callable[[], Frame], interval: float) -> None:
    from fastpubsub.client.pulling import PASSING

    shown: Frame | None = None
    with _screen(), suppress(KeyboardInterrupt):
        while True:
            trouble = ""
            try:
                shown = draw()
            except PASSING as error:
                if shown is None:
                    raise
                trouble = f"{explained(error)}; trying again"
            if _waits(shown, trouble, time.monotonic() + interval):
                return


def _waits(shown: Frame, trouble: str, until: float) -> bool:
    """Draws, and waits for as long as the terminal has this size; tells whether somebody wants to leave."""
    size = shutil.get_terminal_size()
    write_text(_drawn(shown, trouble, *size))
    while (left := until - time.monotonic()) > 0 and size == shutil.get_terminal_size():
        if select.select([sys.stdin], [], [], min(left, LOOK_SECONDS))[0] and _key() in ENDS:
            return True
    return False


def _drawn(shown: Frame, trouble: str, columns: int, rows: int) -> str:
    last = styled(cropped(trouble, columns).rstrip(), "red") if trouble else "q ends it."
    lines = [*shown[: max(rows - 2, 0)], "", last][-rows:]
    return HOME + "\n".join(f"{line}{END_OF_LINE}" for line in lines) + BELOW


def _key() -> str:
    """One character; empty when there is nobody any more."""
    with suppress(OSError):
        return os.read(sys.stdin.fileno(), 1).decode("latin-1")
    return ""


@contextmanager
def _screen() -> Iterator[None]:
    """The terminal is as it was afterwards, and while the command is stopped by Ctrl-Z."""
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def enter() -> None:
        tty.setcbreak(keyboard, termios.TCSANOW)  # and keep what was typed already
        write_text(ENTER)

    def leave() -> None:
        with suppress(OSError, SystemExit):
            write_text(LEAVE)
        with suppress(termios.error):
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

    def stop(*_: object) -> None:
        leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        enter()

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with ExitStack() as stack:
        stack.enter_context(insisting(KeyboardInterrupt, end))
        for number, handler in ((signal.SIGTSTP, stop), (signal.SIGTERM, end), (signal.SIGHUP, end)):
            stack.callback(signal.signal, number, signal.signal(number, handler))
        stack.callback(leave)
        enter()
        yield
