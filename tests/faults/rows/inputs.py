"""Input that nobody should send: more of it than the tests of the API have time for."""

import asyncio
import json
import time

from tests import fuzz
from tests.api.good import GOOD
from tests.faults.campaign import Fault, Figures
from tests.faults.load import expect
from tests.faults.rig import Rig, Setup
from tests.faults.wire import Address

FUZZ_SECONDS = 240
BATCH = 500
PIECES = (b"\x00", b"\xff", b"\r\n", b"\r\n\r\n", b":", b" ", b"%00", b'"', b"{", b"[", b"-1", b"9" * 30, b"\\u0000")


async def follow_the_document(rig: Rig) -> Figures:
    """schemathesis for as long as there is time."""
    command = [*fuzz.command(rig.server.base_url, 100, rig.seed), f"--max-time={FUZZ_SECONDS}"]
    fuzzing = await asyncio.create_subprocess_exec(
        *command, cwd=rig.folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await fuzzing.communicate()
    assert fuzzing.returncode == 0, printed.decode()[-3000:]
    return {"seconds": FUZZ_SECONDS}


async def mutate(rig: Rig) -> Figures:
    """Requests for every route with some of their bytes changed, on raw connections."""
    (address,) = rig.load.addresses
    originals = [raw_request(good.method, f"{good.path}?{good.query}", good.body) for good in GOOD]
    worker = (await rig.all_workers())[0]
    memory = worker.memory_info().rss
    statuses: list[int] = []
    for _ in range(BATCH // 10):
        some = [damaged(rig, rig.random.choice(originals)) for _ in range(10)]
        statuses += [
            status for found in await asyncio.gather(*(answers(address, one) for one in some)) for status in found
        ]
    assert max(statuses) < 500, f"answered {max(statuses)}"
    assert (await rig.all_workers())[0].pid == worker.pid, "the worker died"
    grown = (worker.memory_info().rss - memory) / 2**20
    assert grown < 50, f"{grown:.0f} MB more"
    expect(await rig.load.wire().ask("GET", "/liveness"), 200)
    return {"requests": BATCH, "answers": len(statuses), "grown_mb": max(grown, 0.0)}


def raw_request(method: str, target: str, body: object) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content


def damaged(rig: Rig, request: bytes) -> bytes:
    changed = bytearray(request)
    for _ in range(rig.random.randint(1, 4)):
        start = rig.random.randrange(len(changed))
        piece = (
            rig.random.choice(PIECES) if rig.random.random() < 0.5 else rig.random.randbytes(rig.random.randint(0, 3))
        )
        changed[start : start + rig.random.randint(0, 3)] = piece
    return bytes(changed)


async def answers(address: Address, request: bytes) -> list[int]:
    """The statuses; what waits for more than it says is given up."""
    reader, writer = await asyncio.open_connection(*address)
    received = b""
    until = time.monotonic() + 1
    try:
        writer.write(request)
        writer.write_eof()
        while time.monotonic() < until and (data := await asyncio.wait_for(reader.read(65536), 1)):
            received += data
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


QUIET = Setup(load=False, workers=1)

FAULTS = [
    Fault("B00", "requests made from the OpenAPI document", follow_the_document, 1, 0, QUIET),
    Fault("B22", "500 requests with damaged bytes", mutate, 40, 1, QUIET),
]
