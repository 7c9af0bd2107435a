"""Without authentication anyone who reaches the server may do everything; their browser must not do it for others.

A page of another site makes a browser send requests (`<img>`, forms, WebSockets), though it cannot read the answers. A
page whose name has been made to lead to this machine (DNS rebinding) is of the same site for the browser. The first is
told by `Sec-Fetch-Site` and `Origin`, which programs do not send, the second by `Host`.
"""

from starlette.types import Scope

from fastpubsub.addresses import is_address, is_loopback
from fastpubsub.api.headers import by_name
from fastpubsub.config import Settings

PAGES = frozenset({"/", "/console", "/docs", "/redoc"})
"""A link to them may stand anywhere: they show nothing that is stored, and what they do next comes from here."""

PROBES = frozenset({"/liveness", "/readiness"})
OURS = frozenset({b"", b"same-origin", b"none"})
"""Not `same-site`: all that listens on this machine is one site, whatever its port."""

MAX_REMEMBERED = 1000
LONGEST_REMEMBERED = 255
"""Bytes of a Host."""

ANOTHER_SITE = (
    "without authentication, only this server's own pages may send requests from a browser: turn authentication "
    "on, or name the host of the page in FASTPUBSUB_API_ALLOWED_HOSTS"
)
ANOTHER_HOST = (
    "without authentication, requests that arrive on this address must have a known Host, such as localhost: "
    "turn authentication on, or name the host in FASTPUBSUB_API_ALLOWED_HOSTS"
)


class Browsers:
    def __init__(self, settings: Settings) -> None:
        self._is_open = not settings.auth_enabled
        self._allowed = settings.allowed_hosts()
        self._taken: set[tuple[bytes, str]] = set()

    def refusal(self, scope: Scope) -> str | None:
        """Why a request is not answered; None for all but those that a browser may have been made to send.

        With authentication the token decides, which a page of another site does not have.
        """
        if not self._is_open:
            return None
        headers = by_name(scope)
        host, origin, site = headers.get(b"host", b""), headers.get(b"origin", b""), headers.get(b"sec-fetch-site", b"")
        address = (scope.get("server") or ("",))[0]
        if (host, address) in self._taken and not origin and site in OURS:
            return None
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in PROBES:
            return None
        if not self._takes_host(host, address):
            return ANOTHER_HOST
        return None if self._takes_origin(origin, host, site) or _opens_page(scope, path, headers) else ANOTHER_SITE

    def _takes_host(self, host: bytes, address: str) -> bool:
        """Programs may leave it out, and browsers never do."""
        name = host.decode("latin-1").lower()
        if host and not self._is_known(name) and not self._is_harmless(_bare(name).strip("[]"), address):
            return False
        if len(self._taken) < MAX_REMEMBERED and len(host) <= LONGEST_REMEMBERED:
            self._taken.add((host, address))
        return True

    def _is_known(self, host: str) -> bool:
        return host in self._allowed or _bare(host) in self._allowed

    def _is_harmless(self, name: str, address: str) -> bool:
        if is_loopback(name) or name.endswith(".localhost"):
            return True
        # An address is nobody's name. But browsers say less about addresses than about names of this machine.
        return not is_loopback(address) and (not self._allowed or is_address(name))

    def _takes_origin(self, origin: bytes, host: bytes, site: bytes) -> bool:
        page = origin.lower().partition(b"://")[2]
        if page and self._is_known(page.decode("latin-1")):
            return True
        return site in OURS and (not origin or (page != b"" and page == host.lower()))


def _opens_page(scope: Scope, path: str, headers: dict[bytes, bytes]) -> bool:
    if path not in PAGES or scope["method"] not in ("GET", "HEAD"):
        return False
    return headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"


def _bare(host: str) -> str:
    """Returns the host without its port, and without the final dot of a complete name."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].removesuffix(".")
