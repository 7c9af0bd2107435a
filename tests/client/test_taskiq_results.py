"""Results of taskiq over the bus: what its own tests and those of its backend for Redis try, and what ours promises."""

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel
from taskiq import AsyncTaskiqTask, TaskiqDepends, TaskiqResult
from taskiq.depends.progress_tracker import ProgressTracker, TaskProgress, TaskState
from taskiq.exceptions import ResultGetError, ResultIsReadyError
from taskiq.receiver import Receiver
from taskiq.serializers import PickleSerializer

from fastpubsub.client import AlreadyExists, AsyncClient, ConnectionFailed, NotFound
from fastpubsub.integrations import taskiq_results
from fastpubsub.integrations.taskiq import BusBroker, BusResults, ResultMissing
from fastpubsub.integrations.taskiq_results import Held
from tests.lasting import Last

PATIENCE = 60.0
MakeResults = Callable[..., Awaitable[BusResults[Any]]]


@pytest.fixture
def url(lasting_server: Last) -> str:
    return lasting_server().base_url


@pytest.fixture
async def make(url: str) -> AsyncIterator[MakeResults]:
    """Started ones; each is as one of a process of its own."""
    made: list[BusResults[Any]] = []

    async def started(**settings: Any) -> BusResults[Any]:
        made.append(BusResults(url, **settings))
        await made[-1].startup()
        return made[-1]

    yield started
    for results in made:
        await results.shutdown()


@pytest.fixture
async def results(make: MakeResults) -> BusResults[Any]:
    return await make()


def returned(value: Any, **members: Any) -> TaskiqResult[Any]:
    return TaskiqResult(**{"is_err": False, "return_value": value, "execution_time": 0.1} | members)


async def come(results: BusResults[Any], task_id: str) -> TaskiqResult[Any]:
    """As a client waits for it."""
    return await AsyncTaskiqTask(task_id, results).wait_result(check_interval=0.01, timeout=PATIENCE, with_logs=True)


VALUES = [11, 1.5, 2**70, "é\x00\ud800", None, [1, {"a": [True]}], math.inf, 112.2, {"base64": "bm8="}, ""]


@pytest.mark.parametrize("value", VALUES, ids=ascii)
async def test_what_is_set_is_read_in_another_process(make: MakeResults, results: BusResults[Any], value: Any) -> None:
    reader = await make()
    asked = AsyncTaskiqTask[Any]("a", reader)
    assert not await asked.is_ready()
    result = returned(value, is_err=True, log="My Log", execution_time=112.2, labels={"delay": 1})
    await results.set_result("a", result)
    assert await come(reader, "a") == result
    assert (await asked.get_result()) == result.model_copy(update={"log": None})


async def test_one_process_reads_what_it_wrote_at_once(results: BusResults[Any]) -> None:
    assert not await results.is_result_ready("0")
    for number in range(20):
        await results.set_result(str(number), returned(number))
        assert await results.is_result_ready(str(number))
        assert (await results.get_result(str(number))).return_value == number


async def test_a_process_that_begins_later_finds_what_was_before_it(
    make: MakeResults, results: BusResults[Any]
) -> None:
    for number in range(30):
        await results.set_result(str(number), returned(number))
    late = await make()
    found = await asyncio.gather(*(late.get_result(str(number)) for number in range(30)))
    assert [one.return_value for one in found] == list(range(30))


async def test_a_result_that_is_not_there(results: BusResults[Any]) -> None:
    with pytest.raises(ResultMissing, match="the task a has no result here"):
        await results.get_result("a")
    with pytest.raises(ResultGetError):
        await AsyncTaskiqTask[Any]("a", results).get_result()


async def test_the_last_result_of_a_task_counts(results: BusResults[Any]) -> None:
    await results.set_result("a", returned(1))
    await results.set_result("a", returned(2))
    assert (await results.get_result("a")).return_value == 2


class Picture(BaseModel):
    name: str
    taken_at: datetime


async def test_a_model_comes_back_as_the_type_that_the_task_returns(results: BusResults[Any]) -> None:
    picture = Picture(name="a", taken_at=datetime.now(UTC))
    await results.set_result("a", returned(picture))
    assert (await AsyncTaskiqTask("a", results, Picture).wait_result()).return_value == picture


class Unknown:
    """No JSON."""


@pytest.mark.parametrize(
    ("value", "said"),
    [(Unknown(), "Unable to serialize unknown type"), ("x" * (11 << 20), "10485760 bytes"), (b"\xff", "utf-8")],
)
async def test_nobody_waits_for_a_result_that_cannot_be_written(
    results: BusResults[Any], value: Any, said: str
) -> None:
    with pytest.raises(Exception, match=said):
        await results.set_result("a", returned(value, execution_time=2.0))
    result = await results.get_result("a")
    assert (result.is_err, result.return_value, result.execution_time) == (True, None, 2.0)
    with pytest.raises(TypeError, match=f"the result of the task cannot be written.*{said}"):
        result.raise_for_error()


async def test_another_serializer(make: MakeResults) -> None:
    pickled = await make(serializer=PickleSerializer())
    await pickled.set_result("a", returned({"at": datetime.now(UTC), "bytes": b"\xff"}))
    assert (await pickled.get_result("a")).return_value["bytes"] == b"\xff"


@pytest.mark.parametrize(
    ("state", "meta"),
    [(TaskState.STARTED, "hello world!"), ("retry", "retry error!"), ("custom state", {"Complex": "Value"})],
)
async def test_progress(make: MakeResults, results: BusResults[Any], state: Any, meta: Any) -> None:
    reader = await make()
    assert await reader.get_progress("a") is None
    await results.set_progress("a", TaskProgress(state="before", meta=None))
    await results.set_progress("a", TaskProgress(state=state, meta=meta))
    async with asyncio.timeout(PATIENCE):
        while (seen := await reader.get_progress("a")) is None or seen.state == "before":  # noqa: ASYNC110 - of others
            await asyncio.sleep(0.01)
    assert (seen.state, seen.meta) == (state, meta)
    assert not await reader.is_result_ready("a")


async def test_tasks_report_progress_and_return(url: str, make: MakeResults) -> None:
    broker = BusBroker(url).with_result_backend(await make())
    broker.is_worker_process = True

    @broker.task(task_name="divide")
    async def divide(dividend: int, divisor: int, progress: ProgressTracker[Any] = TaskiqDepends()) -> float:  # noqa: B008
        await progress.set_progress(TaskState.STARTED, {"of": dividend})
        await progress.set_progress("half")
        return dividend / divisor

    await broker.startup()
    ends = asyncio.Event()
    receiving = asyncio.create_task(Receiver(broker, run_startup=False).listen(ends))
    good, bad = await divide.kiq(7, divisor=2), await divide.kiq(7, 0)
    assert (await good.wait_result(timeout=PATIENCE)).return_value == 3.5
    assert isinstance((await bad.wait_result(timeout=PATIENCE)).error, ZeroDivisionError)
    assert await good.get_progress() == TaskProgress(state="half", meta={"of": 7})
    ends.set()
    await receiving
    await broker.shutdown()


async def test_a_result_can_be_read_by_people_and_is_kept_for_a_time(url: str, make: MakeResults) -> None:
    results = await make(topic="answers", keep_seconds=600)
    await results.set_result("a", returned({"width": 200}))
    async with AsyncClient(url) as bus:
        (message,) = (await bus.browse_topic("answers")).data
        assert (await bus.get_topic("answers")).retention_seconds == 600
    assert message.payload is not None
    assert message.payload["return_value"] == {"width": 200}
    assert message.attributes == {"task_id": "a", "kind": "result"}
    with pytest.raises(AlreadyExists, match="keeps settled messages for 600 seconds"):
        await make(topic="answers", keep_seconds=60)


async def test_other_messages_of_the_topic_do_not_matter(url: str, results: BusResults[Any]) -> None:
    assert not await results.is_result_ready("a")
    async with AsyncClient(url) as bus:
        await bus.publish("taskiq-results", {"n": 1}, attributes={"task_id": "a"})
        await bus.publish("taskiq-results", {"n": 1})
    await results.set_result("a", returned(1))
    assert (await come(results, "a")).return_value == 1


async def test_a_topic_that_is_gone_is_told_and_one_that_is_back_works(url: str, make: MakeResults) -> None:
    results = await make(declare=False)
    for ask in (results.is_result_ready, results.get_result, results.get_progress):
        with pytest.raises(NotFound, match="taskiq-results"):
            await ask("a")
    with pytest.raises(ResultIsReadyError):
        await AsyncTaskiqTask[Any]("a", results).is_ready()
    async with AsyncClient(url) as bus:
        await bus.create_topic("taskiq-results")
    await results.set_result("a", returned(1))
    assert (await come(results, "a")).return_value == 1


async def test_what_could_not_be_read_is_an_error_and_no_missing_result(
    results: BusResults[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await results.set_result("a", returned(1))
    written, results._written = results._written, uuid.UUID(int=2**128 - 1)
    with monkeypatch.context() as patched:
        patched.setattr(taskiq_results, "CATCH_UP_SECONDS", 0.1)
        with pytest.raises(ConnectionFailed, match=r"topic taskiq-results could not be read within 0\.1 seconds"):
            await results.get_result("a")
    results._written = written
    assert (await results.get_result("a")).return_value == 1


async def test_one_that_was_not_started() -> None:
    results = BusResults[Any]("http://localhost:1")
    with pytest.raises(RuntimeError, match=r"await broker.startup\(\) first"):
        await results.set_result("a", returned(1))
    with pytest.raises(RuntimeError, match=r"await broker.startup\(\) first"):
        await results.is_result_ready("a")
    await results.shutdown()


def test_what_a_process_holds_is_bounded() -> None:
    held = Held(3, 100)
    for number in range(5):
        held.put("result", str(number), b"x")
    assert [number for number in range(5) if held.get("result", str(number))] == [2, 3, 4]
    held.put("result", "3", b"y" * 99)
    assert [number for number in range(5) if held.get("result", str(number))] == [3, 4]
    held.put("progress", "3", b"z" * 200)
    assert (held.get("result", "3"), held.get("progress", "3")) == (None, b"z" * 200)
    held.put("result", str(uuid.uuid4()), b"")
    assert held.get("progress", "3") is None
