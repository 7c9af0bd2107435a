"""Whose a token is, without asking the database every time."""

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from uuid import UUID

from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import NotFound
from fastpubsub.scopes import Caller
from fastpubsub.services.hashing import SecretHasher
from fastpubsub.services.login_attempts import LoginAttempts
from fastpubsub.services.recent import Recent
from fastpubsub.services.tokens import MAX_TOKEN_BYTES, Grant, invalid_token, make_signer

MAX_TOKENS = 10_000
MAX_KEPT_BYTES = 1024
MAX_CLIENTS = 10_000
STATE_SECONDS = 5.0
"""How long a revocation by another process may go unnoticed."""

SLOW_SECONDS = 0.05
"""What took longer is looked at again before it goes on; to look each time would take as long as a quick answer."""


@dataclass(frozen=True, slots=True)
class ClientState:
    version: int
    is_active: bool
    read_at: float


class Authenticator:
    """Keeps the tokens that it has checked, and for `STATE_SECONDS` what the database said about their clients."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self.enabled = settings.auth_enabled
        self.signer = make_signer(settings)
        self.hasher = SecretHasher()
        self.attempts = LoginAttempts(settings, clock)
        self._database = database
        self._clock = clock
        self._grants: Recent[bytes | str, Grant] = Recent(MAX_TOKENS)
        self._states: Recent[str, ClientState] = Recent(MAX_CLIENTS)
        self._readings: dict[str, asyncio.Task[ClientState]] = {}

    async def authenticate(self, token: bytes) -> Caller:
        grant = self._check(token)
        state = self._states.get(grant.caller.client_id)
        if state is None or not self._is_current(state, grant):
            state = await self._refresh(grant)
        if grant.expires_at <= time.time():
            raise invalid_token("is expired")
        if not state.is_active or state.version != grant.version:
            raise invalid_token("is revoked: its client was changed, disabled or deleted")
        return grant.caller

    async def look_again(self, token: bytes | None) -> None:
        """Checks the token of a request that has waited, before anything is handed out; None without authentication."""
        if token is not None:
            await self.authenticate(token)

    async def inspect(self, token: bytes) -> Grant:
        """All that a good token says; the others are refused as in `authenticate`."""
        await self.authenticate(token)
        return self._check(token)

    def forget(self, client_id: UUID) -> None:
        """Forgets a client that was changed, so that this process notices at once."""
        self._states.forget(str(client_id))
        self._readings.pop(str(client_id), None)

    def close(self) -> None:
        self.hasher.close()
        for reading in self._readings.values():
            reading.cancel()

    def _check(self, token: bytes) -> Grant:
        if len(token) > MAX_TOKEN_BYTES:
            raise invalid_token(f"has more than {MAX_TOKEN_BYTES} bytes")
        # To make a digest takes longer than all the rest; it is for those that would take much memory. As text, for
        # a token that is the digest of another one must not find it.
        key = token if len(token) <= MAX_KEPT_BYTES else sha256(token).hexdigest()
        grant = self._grants.get(key)
        if grant is None:
            if self.signer is None:
                raise invalid_token("cannot be checked: this server has no key")
            grant = self.signer.verify(token)
            self._grants.put(key, grant)
        return grant

    def _is_current(self, state: ClientState, grant: Grant) -> bool:
        # A version that the state does not know was made after it was read, perhaps by another process.
        return self._clock() - state.read_at < STATE_SECONDS and state.version >= grant.version

    async def _refresh(self, grant: Grant) -> ClientState:
        state = await self._read_once(grant.caller.client_id)
        # The reading that was joined may have begun before the token was issued.
        return state if self._is_current(state, grant) else await self._read_once(grant.caller.client_id)

    async def _read_once(self, client_id: str) -> ClientState:
        """Concurrent callers share one read; a caller that goes away does not end it."""
        reading = self._readings.get(client_id)
        if reading is None:
            reading = asyncio.create_task(self._read(client_id))
            self._readings[client_id] = reading
            reading.add_done_callback(partial(self._keep, client_id))
        return await asyncio.shield(reading)

    async def _read(self, client_id: str) -> ClientState:
        read_at = self._clock()
        try:
            version, is_active = await self._database.fetch_one("get_client_state", UUID(client_id))
        except NotFound:
            return ClientState(sys.maxsize, False, read_at)
        return ClientState(version, is_active, read_at)

    def _keep(self, client_id: str, reading: asyncio.Task[ClientState]) -> None:
        failed = reading.cancelled() or reading.exception() is not None
        # One that was forgotten meanwhile may hold what was true before the change.
        if self._readings.get(client_id) is reading:
            del self._readings[client_id]
            if not failed:
                self._states.put(client_id, reading.result())
