"""What TAB offers: ids that the server has, within a moment, and nothing at all when it is away."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fastpubsub.cli import places

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client
    from fastpubsub.client.requests import Request

SECONDS = 1.5
MOST = 100


def topic_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    from fastpubsub.client import requests

    return _asked(ctx, incomplete, lambda: [requests.list_topics(q=incomplete or None, limit=MOST)])


def subscription_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    from fastpubsub.client import requests

    topic = ctx.params.get("topic")
    of_topic = topic if isinstance(topic, str) else None
    return _asked(
        ctx, incomplete, lambda: [requests.list_subscriptions(topic_id=of_topic, q=incomplete or None, limit=MOST)]
    )


def any_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Of topics with `--topic`, else of subscriptions; of both where either may be meant."""
    kinds: list[Callable[..., list[str]]] = [topic_ids] if ctx.params.get("topic") else [subscription_ids]
    if ctx.info_name == "open" and not ctx.params.get("topic") and not ctx.params.get("subscription"):
        kinds = [topic_ids, subscription_ids]
    return sorted({one for kind in kinds for one in kind(ctx, incomplete)})


def context_names(incomplete: str) -> list[str]:
    with suppress(SystemExit), _silence():
        return [name for name in places.load().known if name.startswith(incomplete)]
    return []


def _asked(ctx: typer.Context, incomplete: str, build: "Callable[[], list[Request[Any]]]") -> list[str]:
    """A thread may be left behind, which waits for a name server; the process ends without it."""
    found: list[str] = []

    def ask() -> None:
        with suppress(BaseException), _connected(ctx) as client:
            found.extend(one.id for request in build() for one in client.send(request))

    with _silence():
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(SECONDS)
    return [one for one in found if one.startswith(incomplete) and one.isprintable() and " " not in one]


def _connected(ctx: typer.Context) -> "Client":
    from fastpubsub.cli.remembering import RememberingClient
    from fastpubsub.client.exchange import Policy

    places.choose(*(ctx.params.get(name) for name in ("url", "client_id", "context")))
    return RememberingClient(Policy(timeout=SECONDS, attempt_timeout=SECONDS, attempts=1))


class _silence:  # noqa: N801 - used like a function
    """Nothing is said in the middle of a line that somebody types; a thread that is left behind stays silent, too."""

    def __enter__(self) -> None:
        self._before = sys.stderr
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")

    def __exit__(self, *_error: object) -> None:
        if threading.active_count() == 1:
            sys.stderr.close()
            sys.stderr = self._before
