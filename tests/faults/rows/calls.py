"""Single calls: of unknown outcome, of callers that vanish, against each other."""

import asyncio
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from tests.faults.callers import REPRESENTATION
from tests.faults.campaign import Fault, Figures
from tests.faults.history import Kind, Number
from tests.faults.load import expect
from tests.faults.plan import DEADLINE_SECONDS
from tests.faults.rig import SOON, Rig, Setup
from tests.faults.wire import Address, request_bytes
from tests.proxy import Stage

PROCEDURES = ("publish_messages", "publish_messages_once", "claim_messages_2", "ack_messages_2", "nack_messages")
UNFAIR_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing says nothing but RST."""


async def cut_calls(rig: Rig, procedures: Sequence[str] = PROCEDURES) -> Figures:
    """One of each procedure at each stage; who can repeat it does."""
    fired = 0
    for procedure in procedures:
        for stage in Stage:
            done = rig.proxy.cut_call(procedure, stage)
            async with asyncio.timeout(SOON):
                await done.wait()
            fired += 1
    return {"cuts": fired}


async def cut_one_call(rig: Rig) -> Figures:
    done = rig.proxy.cut_call(rig.random.choice(PROCEDURES), rig.random.choice(list(Stage)))
    async with asyncio.timeout(SOON):
        await done.wait()
    return {"cuts": 1}


async def vanish(rig: Rig) -> Figures:
    """Callers that reset the connection anywhere in their request, or in the answer."""
    (address,) = rig.load.addresses
    vanished = 0
    for _ in range(20):
        topic = rig.random.choice(rig.load.plan.topics)
        vanished += 1
        if rig.random.random() < 0.5:
            await publish_and_vanish(rig, address, topic)
        else:
            path = f"/subscriptions/{topic}.all/messages?consumer_id=gone&batch_size=5"
            await send_and_vanish(rig, address, request_bytes("GET", path))
    return {"vanished": vanished}


async def publish_and_vanish(rig: Rig, address: Address, topic: str) -> None:
    history = rig.history
    who = f"gone{len(history.events)}"
    numbers = [Number(who, 1, place) for place in range(3)]
    body = [number.payload() for number in numbers]
    history.add(who, Kind.INVOKE, "publish", topic=topic, publisher=who, request=1, count=len(numbers))
    await send_and_vanish(rig, address, request_bytes("POST", f"/topics/{topic}/messages", body))
    history.add(who, Kind.UNKNOWN, "publish")


async def send_and_vanish(rig: Rig, address: Address, request: bytes) -> None:
    reader, writer = await asyncio.open_connection(*address)
    opened: socket.socket = writer.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, UNFAIR_RESET)
    how = rig.random.random()
    writer.write(request if how > 0.3 else request[: rig.random.randrange(1, len(request))])
    await writer.drain()
    if how > 0.8:
        await reader.read(20)
    elif how > 0.5:
        await asyncio.sleep(rig.random.uniform(0, 0.02))
    writer.transport.abort()


async def contend(rig: Rig) -> Figures:
    """Eight callers settle, extend, reject and reprocess the same messages, each in its own order."""
    wire = rig.load.wire()
    name = f"contended{len(rig.history.events)}"
    expect(await wire.ask("POST", "/topics", {"id": name}), 201)
    body = {"id": name, "topic_id": name, "ack_deadline_seconds": 1, "backoff_min_seconds": 0}
    expect(await wire.ask("POST", "/subscriptions", body), 201)
    expect(await wire.ask("POST", f"/topics/{name}/messages", [{"n": number} for number in range(500)]), 204)
    ids: list[str] = []
    while len(ids) < 500:
        answer = await wire.ask("GET", f"/subscriptions/{name}/messages?consumer_id=c&batch_size=100")
        ids += [one["id"] for one in expect(answer, 200).json()["data"]]
    before = await deadlocks(rig)
    statuses = await asyncio.gather(*(meddle(rig, name, ids, number) for number in range(8)))
    worst = max(max(one) for one in statuses)
    assert worst < 500 or worst == 503, f"answered {worst}"
    found = await deadlocks(rig) - before
    assert not found, f"{found} deadlocks"
    metrics = expect(await wire.ask("GET", f"/subscriptions/{name}/metrics"), 200).json()
    total = sum(metrics[one] for one in ("available", "delivered", "acked", "dlq"))
    assert total == 500, f"{total} of 500: {metrics}"
    expect(await wire.ask("DELETE", f"/topics/{name}"), 204)
    return {"calls_at_once": sum(map(len, statuses)), "503_here": sum(one.count(503) for one in statuses)}


async def meddle(rig: Rig, name: str, ids: list[str], number: int) -> list[int]:
    wire = rig.load.wire()
    statuses = []
    for turn in range(15):
        some = rig.random.sample(ids, 100)
        what = ("nacks", "leases", "rejects", "dlq/reprocess", "acks", "messages")[(number + turn) % 6]
        path = f"/subscriptions/{name}/{what}"
        body: Any = some[:20] if what == "acks" else some
        if what == "leases":
            body = {"ids": some, "extend_seconds": 1}
        elif what == "rejects":
            body = {"ids": some[:30]}
        if what == "messages":
            answer = await wire.ask("GET", f"{path}?consumer_id=c{number}&batch_size=100")
        else:
            answer = await wire.ask("POST", path, body, REPRESENTATION)
        statuses.append(answer.status)
    wire.close()
    return statuses


async def deadlocks(rig: Rig) -> int:
    ((found,),) = await rig.query("select deadlocks from pg_stat_database where datname = current_database()")
    return int(found)


async def delete_under_way(rig: Rig) -> Figures:
    """A topic and a subscription, while others publish to it and consume."""
    wire = rig.load.wire()
    name = f"deleted{len(rig.history.events)}"
    expect(await wire.ask("POST", "/topics", {"id": name}), 201)
    for kind in ("a", "b"):
        expect(await wire.ask("POST", "/subscriptions", {"id": f"{name}.{kind}", "topic_id": name}), 201)
    using = [asyncio.create_task(use(rig, name, number)) for number in range(4)]
    await asyncio.sleep(rig.random.uniform(0, 0.1))
    expect(await wire.ask("DELETE", f"/subscriptions/{name}.a"), 204)
    await asyncio.sleep(rig.random.uniform(0, 0.1))
    expect(await wire.ask("DELETE", f"/topics/{name}"), 204)
    statuses = [status for found in await asyncio.gather(*using) for status in found]
    assert set(statuses) <= {200, 201, 204, 404}, sorted(set(statuses))
    return {"races": 2, "calls_at_once": len(statuses)}


async def use(rig: Rig, name: str, number: int) -> list[int]:
    """Until the topic is not there any more."""
    wire = rig.load.wire()
    statuses: list[int] = []
    until = time.monotonic() + SOON
    published = 0
    while published != 404:
        assert time.monotonic() < until, "the topic is still there"
        published = (await wire.ask("POST", f"/topics/{name}/messages", [{"n": number}])).status
        for kind in ("a", "b"):
            path = f"/subscriptions/{name}.{kind}"
            pulled = await wire.ask("GET", f"{path}/messages?consumer_id=c{number}")
            messages = pulled.json().get("data", [])
            acked = await wire.ask("POST", f"{path}/acks", [one["ack_id"] for one in messages])
            statuses += [published, pulled.status, acked.status]
    wire.close()
    return statuses


async def die_of_poison(rig: Rig) -> Figures:
    """The load's consumers do; here it is waited for that some became dead letters, and others pass meanwhile."""
    await asyncio.sleep(DEADLINE_SECONDS * 3 + 4)
    ((dead,),) = await rig.query("select count(*) from fastpubsub.dead_letters")
    assert dead, "nothing became a dead letter"
    return {"dead_letters": dead, "works_s": await rig.works_again()}


PATIENT = Setup(settings={"database_lock_timeout_seconds": 20, "database_pool_timeout_seconds": 20})
"""With a busy machine, which is no reason to answer 503."""

FAULTS = [
    Fault("F06", "calls cut before, during and after their commit", cut_calls, 27, 0, Setup(through="proxy")),
    Fault("F10", "callers that vanish", vanish, 50, 0),
    Fault("F14", "the same messages settled by eight at once", contend, 10, 0),
    Fault("F20", "topics and subscriptions deleted under way", delete_under_way, 250, 0, PATIENT),
    Fault("F27", "messages that kill their consumers", die_of_poison, 3, 0),
]
