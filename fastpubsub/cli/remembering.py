"""A client that keeps its access token in a file, so that the next command need not fetch one."""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from fastpubsub.cli import private_files
from fastpubsub.client.clients import Client
from fastpubsub.client.exchange import UNWATCHED, Flow, Policy, Tokens
from fastpubsub.client.waiting import Watch

MAX_BYTES = 64 << 10
KEPT_SECONDS = 30 * 86400
UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError, private_files.Untrusted)


class RememberingClient(Client):
    """Without credentials it has no token, and so no file."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy=policy)
        folder = private_files.folder_of("XDG_CACHE_HOME", ".cache")
        if self._tokens is not None and folder is not None:
            self._tokens = StoredTokens(self.url, self._tokens, folder / "tokens")

    def forget(self) -> None:
        """The server refused the token that it had just given."""
        if isinstance(self._tokens, StoredTokens):
            self._tokens.forget()


class StoredTokens(Tokens):
    """In one file for an address, a client, its secret and its scopes, which are always all that it has."""

    def __init__(self, url: str, tokens: Tokens, folder: Path) -> None:
        super().__init__(tokens.client_id, tokens.client_secret)
        key = "\0".join((url, self.client_id, self.client_secret, ""))
        self._file = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def current(self, refused: str | None) -> str | None:
        return super().current(refused) or self._read(refused)

    def fetch(self, policy: Policy, watch: Watch = UNWATCHED) -> Flow[str]:
        token = yield from super().fetch(policy, watch)
        self._write(token)
        return token

    def forget(self) -> None:
        with suppress(OSError):
            self._file.unlink()

    def _read(self, refused: str | None) -> str | None:
        """What cannot be believed is as good as nothing."""
        try:
            found = json.loads(private_files.read(self._file, MAX_BYTES) or b"{}")
            token, saved_at, seconds = found["token"], float(found["saved_at"]), float(found["seconds"])
        except UNREADABLE:
            return None
        if token == refused:
            self.forget()
        age = time.time() - saved_at
        # A negative age is of a clock that was set back: nobody knows then how old it is.
        return self.take(token, seconds - age) if token != refused and 0 <= age < seconds else None

    def _write(self, token: str) -> None:
        """Without a place for it, the next command fetches another."""
        content = {"token": token, "saved_at": time.time(), "seconds": self.fresh_seconds}
        with suppress(OSError, private_files.Untrusted):
            private_files.write(self._file, json.dumps(content).encode())
            self._clean_up()

    def _clean_up(self) -> None:
        """Those of clients and secrets that nobody has used for long."""
        for file in self._file.parent.glob("*.json"):
            if time.time() - file.lstat().st_mtime > KEPT_SECONDS:
                file.unlink()
