"""TLS to endpoints: with a certificate of this server where its operator has put one for the host."""

import logging
import ssl
from pathlib import Path

from fastpubsub.push.failures import Unreachable

logger = logging.getLogger(__name__)

NO_PASSWORD = b""
"""Else the key of a file that has one would ask for it at the terminal."""

Times = tuple[int, int]
"""When the two files were changed."""


class Tls:
    def __init__(self, folder: str = "") -> None:
        """The folder has a `HOST.crt` and a `HOST.key` for each host that wants to see a certificate."""
        self._folder = Path(folder) if folder else None
        self._usual = ssl.create_default_context()
        self._known: dict[str, tuple[Times, ssl.SSLContext | None]] = {}
        """At most one for each pair of files that there was."""

    def to(self, host: str) -> ssl.SSLContext:
        """Reads files that have changed anew. Raises Unreachable when they cannot be used."""
        if self._folder is None:
            return self._usual
        certificate, key = self._folder / f"{host}.crt", self._folder / f"{host}.key"
        try:
            times = (certificate.stat().st_mtime_ns, key.stat().st_mtime_ns)
        except OSError:
            self._known.pop(host, None)
            return self._usual
        if (known := self._known.get(host)) is None or known[0] != times:
            known = self._known[host] = (times, _loaded(certificate, key))
        if known[1] is None:
            raise Unreachable("this server cannot use the certificate that it has for this host")
        return known[1]


def _loaded(certificate: Path, key: Path) -> ssl.SSLContext | None:
    context = ssl.create_default_context()
    try:
        context.load_cert_chain(certificate, key, NO_PASSWORD)
    except OSError as error:
        logger.warning("a certificate for endpoints cannot be used: %s: file=%s", error, certificate)
        return None
    return context
