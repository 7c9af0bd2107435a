"""Scopes: what a client may do. They match exactly, never by prefix."""

import re
from collections.abc import Iterable

from fastpubsub.exceptions import InvalidRequest, PermissionDenied

EVERYTHING = "*"
SCOPES = {
    EVERYTHING: "Admin mode, full access to all resources and operations",
    "topics:create": "Can create and change topics",
    "topics:read": "Can list or get topics",
    "topics:delete": "Can delete topics",
    "topics:publish": "Can publish messages to topics",
    "topics:consume": "Can follow the messages of topics",
    "subscriptions:create": "Can create and change subscriptions",
    "subscriptions:read": "Can list or get subscriptions and their metrics",
    "subscriptions:delete": "Can delete subscriptions",
    "subscriptions:consume": "Can consume messages from subscriptions",
    "subscriptions:push": "Can have the messages of subscriptions pushed to an endpoint",
    "messages:read": "Can look at the payloads and attributes of messages, by the id of their topic",
    "clients:create": "Can create new clients",
    "clients:update": "Can update clients",
    "clients:read": "Can list or get clients",
    "clients:delete": "Can delete clients",
    "metrics:read": "Can read the metrics of the server",
    "audit:read": "Can read who changed what",
}
FILTERED = "topics:consume"
WITHOUT_OBJECTS = {EVERYTHING, "clients:create", "metrics:read", "audit:read"}
"""The server makes the ids of clients: none is known before it exists. The last two are of everything at once."""

MAX_CHARACTERS = 4096
"""Of a whole scope string, so that a token with all of it stays below the 8 KiB that are accepted."""

OBJECT_ID = re.compile(r"[a-zA-Z0-9._-]{1,128}")
CLIENT_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
LONGEST_ECHO = 80


def parse(text: str) -> tuple[str, ...]:
    """Returns the scopes of a string, separated by spaces, each once and in order."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(f"the scopes have {len(text)} characters, more than {MAX_CHARACTERS}; grant global scopes")
    scopes = tuple(dict.fromkeys(_parse_one(scope) for scope in text.split(" ") if scope))
    if not scopes:
        raise InvalidRequest(f"no scope is given; give at least one of: {', '.join(SCOPES)}")
    return scopes


def _parse_one(scope: str) -> str:
    if scope in SCOPES:
        return scope
    resource, _, rest = scope.partition(":")
    verb, _, object_id = rest.partition(":")
    name = f"{resource}:{verb}"
    if name not in SCOPES:
        raise InvalidRequest(
            f"unknown scope {scope[:LONGEST_ECHO]!a}; the scopes are {', '.join(SCOPES)}; "
            "most of them may end with the id of one object, such as topics:publish:my-topic"
        )
    if name in WITHOUT_OBJECTS:
        raise InvalidRequest(f"the scope {name!r} cannot have an id: it is not for a single object")
    if resource == "clients":
        if not CLIENT_ID.fullmatch(object_id):
            raise InvalidRequest(f"the scope {scope[:LONGEST_ECHO]!a} does not end with the id of a client, a UUID")
        return scope.lower()
    if not is_object_id(object_id):
        raise InvalidRequest(
            f"the scope {scope[:LONGEST_ECHO]!a} does not end with an id of 1 to 128 letters, digits, '.', '_' or '-'"
        )
    return scope


def is_object_id(text: str) -> bool:
    return OBJECT_ID.fullmatch(text) is not None and text not in (".", "..")


def is_filtered(scope: str) -> bool:
    """Returns whether all that the scope allows passes the filter of the token."""
    return scope == FILTERED or scope.startswith(f"{FILTERED}:")


def covers(granted: frozenset[str], wanted: str) -> bool:
    """Returns whether the granted scopes cover the wanted one."""
    return wanted in granted or EVERYTHING in granted or ":".join(wanted.split(":")[:2]) in granted


class Caller:
    """The client that sent a request, the scopes of its token, and the filter that the token is bound to, as JSON."""

    __slots__ = ("client_id", "filter_text", "scopes")

    def __init__(self, client_id: str, scopes: Iterable[str], filter_text: str | None = None) -> None:
        self.client_id = client_id
        self.scopes = frozenset(scopes)
        self.filter_text = filter_text

    def allows(self, verb: str, object_id: str) -> bool:
        scopes = self.scopes
        return verb in scopes or EVERYTHING in scopes or f"{verb}:{object_id}" in scopes

    def objects(self, verb: str) -> frozenset[str] | None:
        """The ids that the verb is allowed on; None for all."""
        if verb in self.scopes or EVERYTHING in self.scopes:
            return None
        return frozenset(scope.removeprefix(f"{verb}:") for scope in self.scopes if scope.startswith(f"{verb}:"))

    def require(self, verb: str, object_id: str) -> None:
        if not self.allows(verb, object_id):
            raise lacking(verb, object_id)

    def require_any(self, verb: str) -> None:
        """Admits lists, and requests whose body names the object: `require` follows after reading it."""
        if self.objects(verb) == frozenset():
            raise lacking(verb)

    def require_grant(self, scopes: Iterable[str]) -> None:
        """Nobody gives away what they do not have."""
        for scope in scopes:
            if not covers(self.scopes, scope):
                raise PermissionDenied(
                    f"only a caller with the scope '{scope}' can grant it; this token does not have it", scope=scope
                )

    def grants(self) -> list[str] | None:
        """The scopes as the procedures take them; None for all."""
        return None if EVERYTHING in self.scopes else sorted(self.scopes)


ANONYMOUS = Caller("anonymous", [EVERYTHING])
"""Everybody, as long as authentication is off."""

NOBODY = Caller("nobody", [])
"""Everybody, on the routes that need no scope."""

ADMINISTRATOR = Caller("administrator", [EVERYTHING])
"""The caller of commands on the server's machine."""


def lacking(verb: str, object_id: str | None = None) -> PermissionDenied:
    if object_id is None or verb in WITHOUT_OBJECTS or not is_object_id(object_id):
        return PermissionDenied(f"this needs the scope '{verb}'; the token does not have it", scope=verb)
    scope = f"{verb}:{object_id}"
    return PermissionDenied(f"this needs the scope '{verb}' or '{scope}'; the token has neither", scope=scope)
