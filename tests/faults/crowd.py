"""Processes of their own for row P10, so that what they do does not count as the server's time.

python -m tests.faults.crowd endpoints PORT                      answers, but never what is odd; /counts tells what came
python -m tests.faults.crowd fill PORT TOPICS SECONDS ROUNDS     a message to each topic in so many seconds, evenly
python -m tests.faults.crowd measure PORT SECONDS                prints the 99th percentile of a publish in seconds
"""

import asyncio
import json
import socket
import statistics
import sys
import time
from collections import defaultdict
from typing import cast

from tests.faults.wire import request_bytes

PAUSE_SECONDS = 0.01
"""Between two publishes that are measured."""


class Endpoints(asyncio.Protocol):
    """The last part of a path is a number: odd ones never answer."""

    def __init__(self, got: dict[str, set[str]]) -> None:
        self._got = got
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._answer(first.split(" ")[1], headers)

    def _answer(self, path: str, headers: dict[str, str]) -> None:
        body = b""
        if path == "/counts":
            body = json.dumps({path: len(ids) for path, ids in self._got.items()}).encode()
        elif int(path.rpartition("-")[2]) % 2:
            return
        else:
            self._got[path].add(headers["webhook-id"])
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def endpoints(port: int) -> None:
    got: dict[str, set[str]] = defaultdict(set)
    server = await asyncio.get_running_loop().create_server(lambda: Endpoints(got), "127.0.0.1", port)
    await server.serve_forever()


def publish(connection: socket.socket, topic: str) -> None:
    connection.sendall(request_bytes("POST", f"/topics/{topic}/messages", [{"number": 1}]))
    answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 204 "), answer


def fill(port: int, topics: int, seconds: float, rounds: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        begun = time.monotonic()
        for number in range(topics * rounds):
            time.sleep(max(0.0, begun + number * seconds / topics - time.monotonic()))
            publish(connection, f"crowd-{number % topics}")


def measure(port: int, seconds: float) -> None:
    took: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        ends = time.monotonic() + seconds
        while (started := time.monotonic()) < ends:
            publish(connection, "quiet")
            took.append(time.monotonic() - started)
            time.sleep(PAUSE_SECONDS)
    print(statistics.quantiles(took, n=100)[-1])


def main() -> None:
    match sys.argv[1:]:
        case ["endpoints", port]:
            asyncio.run(endpoints(int(port)))
        case ["fill", port, topics, seconds, rounds]:
            fill(int(port), int(topics), float(seconds), int(rounds))
        case ["measure", port, seconds]:
            measure(int(port), float(seconds))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
