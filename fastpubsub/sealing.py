"""Seals what the database must not be able to read, with a key of the settings (AES-256-GCM)."""

import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MIN_KEY_CHARACTERS = 32
_NONCE_BYTES = 12


class Unreadable(Exception):
    """Sealed with a key that is not among those given, or for something else."""


class Sealer:
    """The first key seals, and all open."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Each of at least 32 random characters."""
        self._ciphers = [AESGCM(hashlib.sha256(b"fastpubsub sealing\0" + key.encode()).digest()) for key in keys]

    def seal(self, text: bytes, use: str) -> bytes:
        """`use` names what it is for, such as an object's id: it opens for nothing else."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, text, use.encode())

    def open(self, sealed: bytes, use: str) -> bytes:
        return self._opened(sealed, use)[1]

    def reseal(self, sealed: bytes, use: str) -> bytes:
        """With the first key; the same bytes when it is that already."""
        number, text = self._opened(sealed, use)
        return self.seal(text, use) if number else sealed

    def _opened(self, sealed: bytes, use: str) -> tuple[int, bytes]:
        """With the number of the key."""
        for number, cipher in enumerate(self._ciphers):
            try:
                return number, cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], use.encode())
            except (InvalidTag, ValueError):  # one that is too short is none
                continue
        raise Unreadable("it was sealed with a key that this process does not have")
