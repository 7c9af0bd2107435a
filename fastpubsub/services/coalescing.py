"""Which coalescers a process has."""

from collections.abc import Awaitable, Callable, Sequence

from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.services.appends import Appends
from fastpubsub.services.coalescer import Answer, Coalescer, Key, Request, call_bounds


def make_coalescer(
    settings: Settings,
    call: Callable[[Key, Sequence[Request]], Awaitable[Sequence[Answer]]],
    unclaimed: Callable[[Key, Answer], None] | None = None,
    ready: Callable[[int], Awaitable[None]] | None = None,
) -> Coalescer[Key, Request, Answer]:
    if settings.traces_enabled:
        from fastpubsub.services.traced import TracedCoalescer

        return TracedCoalescer(call, call_bounds(settings), unclaimed, ready)
    return Coalescer(call, call_bounds(settings), unclaimed, ready)


def make_appends(settings: Settings, database: Database) -> Appends:
    if settings.traces_enabled:
        from fastpubsub.services.traced import TracedAppends

        return TracedAppends(database)
    return Appends(database)
