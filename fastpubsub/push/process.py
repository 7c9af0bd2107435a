"""`fastpubsub push`: a process that only pushes."""

import asyncio
import signal
from contextlib import suppress

import uvloop
from prometheus_client import CollectorRegistry

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.opening import open_database
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.push.dispatcher import Dispatcher
from fastpubsub.services.claiming import Claiming
from fastpubsub.services.directory import Directory
from fastpubsub.services.history import Recorder
from fastpubsub.services.settling import Settling
from fastpubsub.services.wakeups import Wakeups
from fastpubsub.tracing import tracing


def run(settings: Settings) -> None:
    """Returns after a signal to stop."""
    with tracing(settings):
        uvloop.run(_push(settings))


async def _push(settings: Settings) -> None:
    database = open_database(settings)
    counters = Counters(CollectorRegistry(), settings.metrics_max_subscriptions)
    wakeups, directory = Wakeups(database, settings), Directory(database)
    shared = (database, directory, settings, counters, wakeups, _calls(settings))
    claiming, settling, recorder = Claiming(*shared), Settling(*shared), Recorder(database, counters)
    dispatcher = Dispatcher(database, settings, claiming, settling, counters, wakeups, None)
    jobs = [asyncio.create_task(one.run()) for one in (dispatcher, wakeups, recorder)]
    await _told_to_stop()
    wakeups.lines.end()
    await dispatcher.close()
    await claiming.close()
    await settling.close()
    for job in jobs:
        job.cancel()
    await asyncio.wait(jobs)
    with suppress(FastpubsubError):
        await recorder.write()
    await database.close()


def _calls(settings: Settings) -> int:
    """Of claims, and of settles, at once, so that other processes find PostgreSQL at leisure."""
    return max(1, (settings.database_pool_size + settings.database_max_overflow) // 5)


async def _told_to_stop() -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()
