"""Natural batching: while one call is in flight requests queue, when it returns all that wait go together. No timer."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from fastpubsub.config import Settings
from fastpubsub.database.calls import blames_arguments
from fastpubsub.exceptions import Overloaded
from fastpubsub.tasks import Tasks

CALL_ROWS = 1000
CALL_BYTES = 1 << 20

Key = TypeVar("Key", bound=Hashable)
Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Bounds(NamedTuple):
    """The limits of one call, and of the requests that wait for it; sizes in bytes, per key."""

    rows: int
    size: int
    queued_rows: int
    queued_size: int


def call_bounds(settings: Settings) -> Bounds:
    return Bounds(CALL_ROWS, CALL_BYTES, settings.queue_max_messages, settings.queue_max_bytes)


class _Waiting(Generic[Request, Answer]):
    __slots__ = ("answer", "request", "rows", "size")

    def __init__(self, request: Request, rows: int, size: int, answer: "asyncio.Future[Answer]") -> None:
        self.request = request
        self.rows = rows
        self.size = size
        self.answer = answer


class _Queue(Generic[Request, Answer]):
    __slots__ = ("loop", "rows", "size", "waiting")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[_Waiting[Request, Answer]] = deque()
        self.rows = 0
        self.size = 0

    def put(self, waiting: _Waiting[Request, Answer]) -> None:
        self.waiting.append(waiting)
        self.rows += waiting.rows
        self.size += waiting.size

    def take(self, bounds: Bounds) -> list[_Waiting[Request, Answer]]:
        """Takes the requests of the next call: at least one, then as many as the bounds allow."""
        taken: list[_Waiting[Request, Answer]] = []
        rows = size = 0
        while self.waiting:
            first = self.waiting[0]
            if taken and (rows + first.rows > bounds.rows or size + first.size > bounds.size):
                break
            self.waiting.popleft()
            self.rows -= first.rows
            self.size -= first.size
            if not first.answer.cancelled():
                taken.append(first)
                rows += first.rows
                size += first.size
        return taken


class Coalescer(Generic[Key, Request, Answer]):
    """Turns the requests of one kind into calls, one in flight per key.

    `call` gets the key and the requests that go together and returns an answer for each, in their order. A request
    gets exactly its own answer, after the call returned. When the server refused what was sent, the batch is halved
    until the member to blame is alone: only it gets the error. A cancelled request never cancels the call; an answer
    that nobody waits for any more goes to `unclaimed`. `ready` gets the size of what waits and may take its time,
    while more comes, before a call is made of it.
    """

    def __init__(
        self,
        call: Callable[[Key, Sequence[Request]], Awaitable[Sequence[Answer]]],
        bounds: Bounds,
        unclaimed: Callable[[Key, Answer], None] | None = None,
        ready: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._call = call
        self._bounds = bounds
        self._unclaimed = unclaimed
        self._ready = ready
        self._queues: dict[Key, _Queue[Request, Answer]] = {}
        self._flushing = Tasks()

    async def submit(self, key: Key, request: Request, *, rows: int = 1, size: int = 0) -> Answer:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
            self._flushing.start(self._flush(key, queue))
        elif queue.rows + rows > self._bounds.queued_rows or queue.size + size > self._bounds.queued_size:
            raise Overloaded("too many requests are waiting for the database; try again later")
        waiting: _Waiting[Request, Answer] = _Waiting(request, rows, size, queue.loop.create_future())
        queue.put(waiting)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if not waiting.answer.cancelled() and waiting.answer.exception() is None:
                self._give_up(key, waiting.answer.result())
            raise

    async def drain(self) -> None:
        """Waits until nothing is queued or in flight."""
        await self._flushing.finish()

    async def _flush(self, key: Key, queue: _Queue[Request, Answer]) -> None:
        while queue.waiting:
            if self._ready is not None:
                await self._ready(queue.size)
            await self._answer(key, queue.take(self._bounds))
        del self._queues[key]

    async def _answer(self, key: Key, batch: list[_Waiting[Request, Answer]]) -> None:
        if not batch:
            return
        try:
            answers = await self._call(key, [waiting.request for waiting in batch])
            pairs = list(zip(batch, answers, strict=True))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
            if len(batch) > 1 and blames_arguments(error):
                middle = len(batch) // 2
                await self._answer(key, batch[:middle])
                await self._answer(key, batch[middle:])
                return
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting, answer in pairs:
            if waiting.answer.done():
                self._give_up(key, answer)
            else:
                waiting.answer.set_result(answer)

    def _give_up(self, key: Key, answer: Answer) -> None:
        if self._unclaimed is not None:
            self._unclaimed(key, answer)
