"""Results of taskiq over the bus: workers publish them to a topic, and those who ask for one follow it."""

from __future__ import annotations  # those of taskiq, which the guide is built without

import asyncio
import contextlib
import uuid
from collections import OrderedDict
from typing import Any, TypeVar

import httpx
from pydantic_core import to_jsonable_python
from taskiq import AsyncResultBackend, TaskiqResult
from taskiq.abc.serializer import TaskiqSerializer
from taskiq.depends.progress_tracker import TaskProgress
from taskiq.exceptions import ResultGetError
from taskiq.serializers import JSONSerializer

from fastpubsub.client import AsyncClient, ConnectionFailed, InvalidRequest, TooLarge, Topic, TopicMessage
from fastpubsub.client.declaring import declare
from fastpubsub.integrations.taskiq_payloads import message_of, payload_of

ReturnType = TypeVar("ReturnType")

RESULT, PROGRESS = "result", "progress"
RECENT = 1000
"""How many earlier messages a process gets that begins to ask, which is as many as a topic gives."""

CATCH_UP_SECONDS = 60.0
"""How long a question waits for what was published before it, as a call of the client does for its answer."""

MIB = 1 << 20


class ResultMissing(ResultGetError):
    """The task has not ended, its worker could not write the result, or it is one of too long ago."""

    __template__ = "the task {task_id} has no result here: it has not ended, or too long ago"
    task_id: str


class BusResults(AsyncResultBackend[ReturnType]):
    """Publishes results and progress of tasks to a topic; a process that asks for one gets all of them.

    `url`, `client_id` and `client_secret` are those of `AsyncClient`. The topic keeps results for `keep_seconds`, a
    process the newest `max_results` of up to `max_bytes` together. A process that begins to ask gets the newest 1,000
    of the topic. Results are JSON, unless another serializer of taskiq is given. With `declare=False` the topic is not
    created.

    A result that cannot be written, such as one that is no JSON or too large, becomes an error that says so, so that
    nobody waits for it.
    """

    def __init__(
        self,
        url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        *,
        topic: str = "taskiq-results",
        keep_seconds: int = 3600,
        max_results: int = 10_000,
        max_bytes: int = 64 * MIB,
        serializer: TaskiqSerializer | None = None,
        declare: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._address = (url, client_id, client_secret)
        self._transport = transport
        self._topic = Topic(topic, retention_seconds=keep_seconds)
        self._serializer = serializer or JSONSerializer(default=to_jsonable_python)
        self._declares = declare
        self._held = Held(max_results, max_bytes)
        self._client: AsyncClient | None = None
        self._following: Following | None = None
        self._written = uuid.UUID(int=0)

    async def startup(self) -> None:
        """Opens the client. A second call does nothing, because the broker makes one, too."""
        if self._client is not None:
            return
        self._client = client = AsyncClient(*self._address, transport=self._transport)
        if self._declares:
            await declare(client, [self._topic], [])

    async def shutdown(self) -> None:
        if self._following is not None:
            await self._following.close()
        if self._client is not None:
            await self._client.close()
        self._client = self._following = None

    async def set_result(self, task_id: str, result: TaskiqResult[ReturnType]) -> None:
        try:
            await self._write(RESULT, task_id, result)
        except (TypeError, ValueError, RecursionError, InvalidRequest, TooLarge) as error:
            said = TypeError(f"the result of the task cannot be written: {error}")
            failed = TaskiqResult[Any](is_err=True, return_value=None, execution_time=result.execution_time, error=said)
            await self._write(RESULT, task_id, failed)
            raise

    async def is_result_ready(self, task_id: str) -> bool:
        return await self._read(RESULT, task_id) is not None

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[ReturnType]:
        """Raises `ResultMissing`."""
        written = await self._read(RESULT, task_id)
        if written is None:
            raise ResultMissing(task_id=task_id)
        result = TaskiqResult[ReturnType].model_validate(self._serializer.loadb(written))
        return result if with_logs else result.model_copy(update={"log": None})

    async def set_progress(self, task_id: str, progress: TaskProgress[Any]) -> None:
        await self._write(PROGRESS, task_id, progress)

    async def get_progress(self, task_id: str) -> TaskProgress[Any] | None:
        written = await self._read(PROGRESS, task_id)
        return None if written is None else TaskProgress[Any].model_validate(self._serializer.loadb(written))

    async def _write(self, kind: str, task_id: str, value: TaskiqResult[Any] | TaskProgress[Any]) -> None:
        payload = payload_of(self._serializer.dumpb(value.model_dump()))
        attributes = {"task_id": task_id, "kind": kind}
        (id_,) = await self._opened().publish(self._topic, payload, attributes=attributes)
        self._written = uuid.UUID(id_)

    async def _read(self, kind: str, task_id: str) -> bytes | None:
        if self._following is None or self._following.error is not None:
            self._following = Following(self._opened(), self._topic.id, self._held)
        await self._following.reached(self._written)
        return self._held.get(kind, task_id)

    def _opened(self) -> AsyncClient:
        if self._client is None:
            raise RuntimeError("the result backend is not open: await broker.startup() first")
        return self._client


class Held:
    """The newest results and progress, as they were written."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._bytes = 0
        self._values: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def put(self, kind: str, task_id: str, value: bytes) -> None:
        self._bytes += len(value) - len(self._values.pop((kind, task_id), b""))
        self._values[kind, task_id] = value
        while len(self._values) > max(self._max_count, 1) or (self._bytes > self._max_bytes and len(self._values) > 1):
            self._bytes -= len(self._values.popitem(last=False)[1])

    def get(self, kind: str, task_id: str) -> bytes | None:
        return self._values.get((kind, task_id))


class Following:
    """Holds what comes in a topic, in the background, until an error that does not pass."""

    def __init__(self, client: AsyncClient, topic_id: str, held: Held) -> None:
        self._client = client
        self._topic_id = topic_id
        self._held = held
        self._moved = asyncio.Condition()
        self._start: uuid.UUID | None = None
        """The newest message when it began."""
        self._newest = uuid.UUID(int=0)
        self.error: Exception | None = None
        self._task = asyncio.create_task(self._run())

    async def reached(self, id_: uuid.UUID) -> None:
        """Waits until it holds what was there when it began, and this message; raises the error that ended it."""
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS), self._moved:
                await self._moved.wait_for(lambda: self._is_at(id_))
        except TimeoutError:
            self._task.cancel()
            self.error = ConnectionFailed(
                f"topic {self._topic_id} could not be read within {CATCH_UP_SECONDS:g} seconds"
            )
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _is_at(self, id_: uuid.UUID) -> bool:
        return self.error is not None or (self._start is not None and self._newest >= max(self._start, id_))

    async def _run(self) -> None:
        try:
            await self._follow()
        except Exception as error:  # noqa: BLE001 - who asks gets it
            self.error = error
            async with self._moved:
                self._moved.notify_all()

    async def _follow(self) -> None:
        there = (await self._client.browse_topic(self._topic_id, limit=1)).data
        async with self._moved:
            self._start = there[-1].id if there else self._newest
            self._moved.notify_all()
        # Cancelled between two messages, it would leave the connection to the garbage collector.
        async with contextlib.aclosing(self._client.follow(self._topic_id, recent=RECENT)) as messages:
            async for message in messages:
                await self._take(message)

    async def _take(self, message: TopicMessage) -> None:
        attributes = message.attributes or {}
        if {"kind", "task_id"} <= attributes.keys():
            self._held.put(attributes["kind"], attributes["task_id"], message_of(message.payload))
        async with self._moved:
            self._newest = max(self._newest, message.id)
            self._moved.notify_all()
