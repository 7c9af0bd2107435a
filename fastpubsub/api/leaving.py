"""Noticing that a client goes away while its request is worked on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect


@asynccontextmanager
async def cancelled_by_leaving(request: Request) -> AsyncIterator[None]:
    """Cancels the block, as a timeout would, and raises ClientDisconnect."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("there is no task to cancel")
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if left and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()
