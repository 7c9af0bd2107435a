"""Hashes of client secrets, made off the event loop."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from fastpubsub.exceptions import Overloaded

TIME_COST = 2
MEMORY_COST = 19456
"""KiB, as OWASP recommends it with two passes."""

AT_ONCE = 2
"""Each takes 19 MiB and about 20 ms of a core."""

MAX_PLACES = 100
"""The last one waits about a second, and two when all before were wrong."""

NO_HASH = "$argon2id$v=19$m=19456,t=2,p=1$dGhlIHNhbHQgb2Ygbm9uZQ$bm90IHRoZSBoYXNoIG9mIGFueSBzZWNyZXQgYXQgYWw"
"""The hash of no secret, at the same cost: an unknown client must not be answered faster."""


class SecretHasher:
    """Hashes with argon2id and the parameters that OWASP recommends, few at once."""

    def __init__(self, at_once: int = AT_ONCE, places: int = MAX_PLACES) -> None:
        self._argon2 = PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_COST, parallelism=1)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="secret-hasher")
        self._free_places = places

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for a hash, taken before any other expensive step; raises Overloaded when all are taken."""
        if not self._free_places:
            raise Overloaded("too many requests for tokens at once; use your present token, or try again later")
        self._free_places -= 1
        try:
            yield
        finally:
            self._free_places += 1

    async def hash(self, secret: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._argon2.hash, secret)

    async def verify(self, secret_hash: str, secret: str) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._matches, secret_hash, secret)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, secret_hash: str, secret: str) -> bool:
        try:
            return self._argon2.verify(secret_hash, secret)
        except (VerificationError, InvalidHashError):
            return False
