"""Database URLs as people write them, turned into the one form that SQLAlchemy and psycopg take."""

import re
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

DRIVER = "postgresql+psycopg"

PARTS = re.compile(
    r"(?P<scheme>[\w+]+)://(?:(?P<credentials>[^/?]*)@)?(?P<hosts>[^/?@]*)(?P<rest>(?:/[^?]*)?(?:\?.*)?)", re.DOTALL
)


def normalise(url: str) -> URL:
    """Takes what libpq takes, several hosts and unix sockets too. A ValueError does not repeat the URL (passwords)."""
    parts = PARTS.fullmatch(url.strip())
    if parts is None:
        raise ValueError(refusal("is not a URL"))
    if parts["scheme"] not in ("postgres", "postgresql", DRIVER):
        raise ValueError(refusal(f"begins with {parts['scheme']}://, and only PostgreSQL is supported"))
    hosts = parts["hosts"].split(",")
    credentials = "" if parts["credentials"] is None else parts["credentials"].replace("@", "%40") + "@"
    try:
        parsed = make_url(f"{DRIVER}://{credentials}{hosts[0] if len(hosts) == 1 else ''}{parts['rest']}")
    except (ArgumentError, ValueError):
        raise ValueError(refusal("is not a URL")) from None
    if len(hosts) > 1:
        return parsed.update_query_dict({"host": hosts})
    if parsed.host is not None and parsed.host.lower().startswith("%2f"):
        return parsed.set(host=None).update_query_dict({"host": unquote(parsed.host)})
    return parsed


def refusal(what: str) -> str:
    return (
        f"the database URL {what}: write {DRIVER}://user:password@host:5432/database, "
        "with %40, %3A, %2F and %25 for @, :, / and % in a password"
    )
