"""Messages that are pushed: to services that misbehave, by processes that are killed, and to a real service."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial

from tests import clusters, harness
from tests.faults.campaign import Fault, Figures
from tests.faults.load import expect
from tests.faults.receiver import Misbehavior, Request
from tests.faults.rig import SOON, Rig, Setup
from tests.faults.rows.calls import UNFAIR_RESET
from tests.faults.rows.databases import restart_postgres
from tests.push.endpoint import OK, Speak
from tests.push.service import Service

OUTAGE_SECONDS = 4.0
MISTREATED = 5
"""Requests at least, in an outage."""

TAKEN_OVER_SECONDS = 15.0
"""After which another process pushes instead of one that was killed."""

GROWTH_MB = 50
WRONG_CLOCKS = (3600.0, -3600.0)
BATCH = 500
"""Payments that are published at once."""

PAYMENTS_PER_SECOND = 10
"""At least: what takes longer is stuck."""


# services that misbehave


def hangs(request: Request) -> Speak:
    async def speak(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        try:
            await reader.read()  # until the server has had enough
        finally:
            request.failed()

    return speak


def resets(request: Request) -> Speak:
    """Before its answer, or in the middle of the head."""
    said = request.receiver.random.choice([b"", b"HTTP/1.1 200 O"])

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(said)
            await writer.drain()
            opened: socket.socket = writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, UNFAIR_RESET)
            writer.transport.abort()
        finally:
            request.failed()

    return speak


def dribbles(request: Request) -> Speak:
    """Byte by byte: all of its answer, whose status comes too late, or only the body."""
    if request.receiver.random.random() < 0.5:
        request.acked()
        return _dribbled(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"x" * 99)
    return _dribbled(b"", OK, request.failed)


def _dribbled(head: bytes, rest: bytes, cut: Callable[[], None] | None = None) -> Speak:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(head)
            for byte in rest[:-1]:  # never whole, however patient the server is
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.2)
        finally:
            if cut is not None:
                cut()

    return speak


def pours(request: Request) -> Speak:
    """Ten gigabytes."""
    request.acked()

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        for _part in range(10**10 >> 16):
            writer.write(b"x" * (1 << 16))
            await writer.drain()

    return speak


LIES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and much more than that",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nok",
    OK + OK,
)


def lies(request: Request) -> bytes:
    """About the length of its body."""
    request.acked()
    return request.receiver.random.choice(LIES)


async def suffer(rig: Rig, misbehavior: Misbehavior | None = None, clock_off: float = 0.0) -> Figures:
    """For some seconds; the other topic does not notice, and the server takes no more than its room."""
    receiver = rig.load.receiver
    before, memory = receiver.mistreated, memory_mb(rig)
    receiver.misbehavior, receiver.clock_off = misbehavior, clock_off
    started = time.monotonic()
    try:
        await rig.until(lambda: receiver.mistreated >= before + MISTREATED, "nothing was pushed")
        async with asyncio.timeout(SOON):
            await rig.load.progress(20, rig.load.plan.topics[1:])
        unharmed = time.monotonic() - started
        await asyncio.sleep(started + OUTAGE_SECONDS - time.monotonic())
        grown = memory_mb(rig) - memory
    finally:
        receiver.misbehavior, receiver.clock_off = None, 0.0
    assert grown < GROWTH_MB, f"{grown:.0f} MB more"
    mistreated = receiver.mistreated - before
    works = await rig.works_again()
    return {"mistreated": mistreated, "others_s": unharmed, "works_s": works, "grown_mb": max(grown, 0)}


async def be_late(rig: Rig) -> Figures:
    """The clock of the service: it takes all that is pushed for old, or for not made yet."""
    return await suffer(rig, clock_off=rig.random.choice(WRONG_CLOCKS))


def memory_mb(rig: Rig) -> float:
    return sum(one.memory_info().rss for one in rig.workers()) / 2**20


# processes that are killed


async def kill_between(rig: Rig) -> Figures:
    """The process that pushes, when it has its answer and not settled yet; another one takes over."""
    (victim,) = rig.pushers
    killed = asyncio.Event()

    def answer_and_kill(request: Request) -> Speak:
        request.acked()

        async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(OK)
            await writer.drain()
            if not killed.is_set():
                rig.history.note("kill", pid=victim.process.pid)
                victim.process.send_signal(signal.SIGKILL)
                killed.set()

        return speak

    await rig.busy()
    rig.load.receiver.misbehavior = answer_and_kill
    async with asyncio.timeout(SOON):
        await killed.wait()
    rig.load.receiver.misbehavior = None
    return {"works_s": await taken_over(rig, victim)}


async def taken_over(rig: Rig, victim: harness.Server) -> float:
    started = time.monotonic()
    await replace(rig, victim)
    await asyncio.sleep(TAKEN_OVER_SECONDS)
    await rig.works_again()
    return time.monotonic() - started


async def replace(rig: Rig, victim: harness.Server) -> None:
    """One that was killed."""
    victim.exit_code = await asyncio.to_thread(victim.process.wait)
    assert "Traceback" not in victim.output(), "it logged a traceback"
    rig.pushers.remove(victim)
    rig.pushers.append(rig.start_pusher())


# a real service


async def serve(rig: Rig) -> Figures:
    """The example of docs/push.md under uvicorn books each payment once, however often both sides are killed."""
    count, kills = (100_000, 10) if rig.is_whole else (2_000, 2)
    # In memory: nothing here is a crash of the machine, and a disk may take 20 ms for the commit of a payment.
    service = Service(rig.folder, rig.closing.enter_context(clusters.folder()))
    rig.closing.callback(service.kill)
    await subscribe(rig, service)
    service.start()
    started = time.monotonic()
    ids = await publish_payments(rig, count)
    for kill in range(1, kills + 1):
        await until_booked(service, kill * count // (kills + 1), count)
        service.kill()
        service.start()
        (victim,) = rig.pushers
        os.kill(victim.process.pid, signal.SIGKILL)
        await replace(rig, victim)
    await until_booked(service, count, count)
    await rig.until_found("select count(*) from fastpubsub.leases", 0)
    assert service.message_ids() == ids
    assert service.booked() == (count, count * (count - 1) // 2)
    metrics = expect(await rig.load.wire().ask("GET", "/subscriptions/booking/metrics"), 200).json()
    assert (metrics["acked"], metrics["dlq"]) == (count, 0), metrics
    return {"killed": 2 * kills, "payments": count, "payments_s": time.monotonic() - started}


async def subscribe(rig: Rig, service: Service) -> None:
    wire = rig.load.wire()
    expect(await wire.ask("POST", "/topics", {"id": "payments"}), 201)
    body = {
        "id": "booking",
        "topic_id": "payments",
        "ack_deadline_seconds": 10,
        "max_delivery_attempts": 100,
        "backoff_min_seconds": 0,
        "push": {"endpoint": service.url, "timeout_seconds": 5},
    }
    service.secret = expect(await wire.ask("POST", "/subscriptions", body), 201).json()["push"]["secret"]


async def publish_payments(rig: Rig, count: int) -> set[str]:
    """Their ids; each has a number of cents of its own."""
    wire = rig.load.wire()
    ids: set[str] = set()
    for first in range(0, count, BATCH):
        payments = [{"account": "a", "cents": number} for number in range(first, first + BATCH)]
        answer = await wire.ask("POST", "/topics/payments/messages", payments, {"Prefer": "return=representation"})
        ids |= set(expect(answer, 201).json()["ids"])
    return ids


async def until_booked(service: Service, booked: int, count: int) -> None:
    seconds = SOON + 2 * TAKEN_OVER_SECONDS + count / PAYMENTS_PER_SECOND
    until = time.monotonic() + seconds
    while (found := (await asyncio.to_thread(service.booked))[0]) < booked:
        assert time.monotonic() < until, f"{found} of {booked} payments are booked after {seconds:.0f} s"
        await asyncio.sleep(1.0)


PUSHED = Setup(pushed=True, pace=4.0)
BY_OTHERS = Setup(pushed=True, pace=4.0, pushers=1)

FAULTS = [
    Fault("P01", "pushed to a service that hangs", partial(suffer, misbehavior=hangs), 10, 0, PUSHED),
    Fault("P02", "pushed to a service that resets", partial(suffer, misbehavior=resets), 10, 0, PUSHED),
    Fault("P03", "pushed to a service that answers byte by byte", partial(suffer, misbehavior=dribbles), 10, 0, PUSHED),
    Fault("P04", "pushed to a service that answers 10 GB", partial(suffer, misbehavior=pours), 10, 0, PUSHED),
    Fault("P05", "pushed to a service that lies about its length", partial(suffer, misbehavior=lies), 10, 0, PUSHED),
    Fault("P06", "pushed to a service whose clock is wrong", be_late, 10, 0, PUSHED),
    Fault("P07", "kill -9 of what pushes, between answer and ack", kill_between, 20, 0, BY_OTHERS),
    Fault("P08", "PostgreSQL crashes while it is pushed", restart_postgres, 20, 0, PUSHED),
    Fault(
        "P09", "a real service and what pushes to it, killed", serve, 1, 0, Setup(load=False, pushed=True, pushers=1)
    ),
]
