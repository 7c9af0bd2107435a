"""Turns on the spans of a process where the settings say so."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastpubsub.config import Settings


@contextmanager
def tracing(settings: Settings) -> Iterator[None]:
    """The last spans are sent at its end."""
    if not settings.traces_enabled:
        yield
        return
    from fastpubsub.traces import spans

    spans.start()
    try:
        yield
    finally:
        spans.stop()
