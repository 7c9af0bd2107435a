"""`fastpubsub worker`: finds workers by name and runs them in this process."""

import asyncio
import importlib
import logging
import operator
import os
import sys
import threading
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

from fastpubsub.client.health import answering
from fastpubsub.client.threads import THREADS
from fastpubsub.client.worker import Worker, run_until_signal

logger = logging.getLogger("fastpubsub.client")

END_SECONDS = 1.0
STILL_RUNNING = 1
"""Exit code when plain functions did not end in time: threads cannot be cancelled, and would keep the process."""


Kind = TypeVar("Kind")


class TargetError(Exception):
    pass


def load(target: str) -> Worker:
    """Imports `package.module:name`, or `module:bus.worker`, from the current folder or the Python path."""
    worker = load_any(target, Worker, "fastpubsub worker emails:worker")
    if not worker.subscriptions:
        name = target.partition(":")[2]
        raise TargetError(f"{target}: {name} has no subscribers, so it has nothing to do")
    return worker


def load_any(target: str, kind: type[Kind], example: str) -> Kind:
    """Imports what a command is about; raises `TargetError`."""
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise TargetError(f"{target}: write MODULE:{kind.__name__.upper()}, for example: {example}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise TargetError(f"{target}: there is no module {error.name} here or in the Python path") from None
    try:
        loaded = operator.attrgetter(name)(module)
    except AttributeError:
        loaded = None
    if not isinstance(loaded, kind):
        found = [key for key, value in vars(module).items() if isinstance(value, kind)]
        raise TargetError(f"{target}: {name} is not a {kind.__name__}; {module_name} has: {', '.join(found) or 'none'}")
    return loaded


async def _run(workers: list[Worker], health: tuple[str, int] | None) -> None:
    async with AsyncExitStack() as stack:
        if health is not None:
            try:
                await stack.enter_async_context(answering(workers, *health))
            except OSError as error:
                raise TargetError(
                    f"--health-port: cannot listen on {health[0]}:{health[1]}: {error.strerror}"
                ) from None
        await run_until_signal(workers)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says about all workers. `health` is the host and the port of the probes."""

    subscriptions: Collection[str] = ()
    concurrency: int | None = None
    max_messages: int | None = None
    health: tuple[str, int] | None = None


def run(workers: list[Worker], options: RunOptions) -> None:
    """Each worker once, however often it was named."""
    workers = _chosen(list(dict.fromkeys(workers)), options.subscriptions)
    for worker in workers:
        if options.concurrency is not None:
            worker.limit(options.concurrency)
    if options.max_messages is not None:
        _stop_after(options.max_messages, workers)
    asyncio.run(_run(workers, options.health))
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(THREADS)]
    for thread in threads:
        thread.join(END_SECONDS)
    if any(thread.is_alive() for thread in threads):
        sys.stderr.flush()
        os._exit(STILL_RUNNING)


def _chosen(workers: list[Worker], subscriptions: Collection[str]) -> list[Worker]:
    """Those with subscribers that are wanted; all without `subscriptions`."""
    if not subscriptions:
        return workers
    there = {subscription for worker in workers for subscription in worker.subscriptions}
    if unknown := sorted(set(subscriptions) - there):
        raise TargetError(f"--subscription {unknown[0]}: there is no such subscriber, but: {', '.join(sorted(there))}")
    for worker in workers:
        worker.choose(subscriptions)
    return [worker for worker in workers if worker.subscriptions]


def _stop_after(count: int, workers: list[Worker]) -> None:
    left = count

    def count_one() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            logger.info("%d messages are done: this process of the workers ends", count)
            for worker in workers:
                worker.stop()

    for worker in workers:
        worker.on_finished = count_one
