"""Looks up where an endpoint is, and hands out only addresses that may be reached."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from fastpubsub.addresses import Address, Network, may_reach
from fastpubsub.push.failures import Refused, Unreachable
from fastpubsub.services.recent import Recent

REMEMBERED = 10_000
REMEMBERED_SECONDS = 30.0
"""The resolver of the system tells no time to live."""

LOOKING_UP = 8
"""Names at once, in threads of their own."""

MAX_WAITING = 1000
LOOK_UP_SECONDS = 5.0

LookUp = Callable[[str], Sequence[str]]


def look_up(host: str) -> Sequence[str]:
    """Blocks."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class LookUps:
    """Those that are under way, one for each name."""

    def __init__(self, find: LookUp) -> None:
        self._find = find
        self._threads = ThreadPoolExecutor(LOOKING_UP, "push-names")
        self._under_way: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def find(self, host: str) -> Sequence[str]:
        """Raises OSError, also when it takes too long, and ValueError."""
        found = self._under_way.get(host) or self._begin(host)
        async with asyncio.timeout(LOOK_UP_SECONDS):
            return await asyncio.shield(found)

    def _begin(self, host: str) -> asyncio.Future[Sequence[str]]:
        if len(self._under_way) >= MAX_WAITING:
            raise OSError("too many names are looked up")
        found = asyncio.get_running_loop().run_in_executor(self._threads, self._find, host)
        self._under_way[host] = found
        found.add_done_callback(lambda _: self._under_way.pop(host))
        return found

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Resolver:
    def __init__(self, allowed: Sequence[Network], find: LookUp = look_up) -> None:
        self._allowed = allowed
        self._known: Recent[str, tuple[float, list[Address]]] = Recent(REMEMBERED)
        self._strangers, self._again = LookUps(find), LookUps(find)
        """Names that were found last time do not wait behind others, which may be slow on purpose."""

    async def addresses(self, host: str) -> list[Address]:
        """At least one; raises Refused when one of them may not be reached, for it is nobody's business which."""
        loop = asyncio.get_running_loop()
        known = self._known.get(host)
        if known is not None and loop.time() < known[0]:
            return known[1]
        try:
            found = await (self._strangers if known is None else self._again).find(host)
            addresses = [ipaddress.ip_address(one) for one in dict.fromkeys(found)]
        except (OSError, ValueError):
            self._known.forget(host)
            raise Unreachable(f"the name {host} cannot be looked up") from None
        if not addresses:
            raise Unreachable(f"the name {host} has no address")
        if not all(may_reach(address, self._allowed) for address in addresses):
            raise Refused(
                f"{host} is at an address that is not of the internet; FASTPUBSUB_PUSH_ALLOW_NETWORKS can allow it"
            )
        self._known.put(host, (loop.time() + REMEMBERED_SECONDS, addresses))
        return addresses

    def close(self) -> None:
        self._strangers.close()
        self._again.close()
