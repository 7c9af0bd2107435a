"""Tracebacks of handlers, as their authors want to see them."""

from types import TracebackType

OURS = ("fastpubsub.client", "asyncio", "contextlib", "threading", "concurrent.futures")


def traceback_of(error: BaseException) -> TracebackType | None:
    """From the first frame on that is not the worker's; all of it when there is no other."""
    traceback = error.__traceback__
    while traceback is not None and _is_ours(traceback):
        traceback = traceback.tb_next
    return traceback or error.__traceback__


def _is_ours(traceback: TracebackType) -> bool:
    module = str(traceback.tb_frame.f_globals.get("__name__"))
    return any(module == one or module.startswith(f"{one}.") for one in OURS)
