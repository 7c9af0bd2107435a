"""What callers give, judged at once and in words, and not by a library, a proxy or a refusal."""

import re
from collections.abc import Mapping

import httpx

_HEADER = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_CREDENTIAL = re.compile(r"[!-~]+")
_NEVER_IN_ADDRESSES = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SHOWN = 60
MAX_PORT = 65535


def check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER.fullmatch(value):
            raise ValueError(
                f"{name} {_shown(value)} cannot be sent as a header: it may have printable ASCII characters, "
                "and spaces between them; encode it"
            )


def check_text(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} {_shown(value)} has half a surrogate pair, which UTF-8 cannot write") from None


def address_fault(url: str) -> str | None:
    """Never shows the address, which may have a password in it."""
    if not url.startswith(("http://", "https://")):
        return "must begin with http:// or https://, and this one does not"
    if found := _NEVER_IN_ADDRESSES.search(url):
        return f"cannot have {found[0]!a}, which is its character {found.start() + 1} of {len(url)}"
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        return f"cannot be read: {error}"
    if not parsed.host:
        return "has no host"
    if (parsed.port or 0) > MAX_PORT:
        return f"has a port above {MAX_PORT}"
    return "must end with its path, without ? or #" if parsed.query or parsed.fragment else None


def credential_fault(value: str) -> str | None:
    """Never shows it."""
    if _CREDENTIAL.fullmatch(value):
        return None
    return "has a character that none of ours has, such as a space or the end of a line: copy it again"


def _shown(value: str) -> str:
    return ascii(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
