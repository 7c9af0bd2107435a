"""Decides about access to `/metrics`, which names topics and subscriptions."""

import hmac

from fastapi import Request

from fastpubsub.addresses import is_loopback
from fastpubsub.api.headers import by_name, every
from fastpubsub.exceptions import Unauthenticated
from fastpubsub.scopes import ANONYMOUS, Caller

FORWARDED = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"})
"""The headers that proxies add. A proxy on this machine does not mean that its client is there, too."""


def scraper(request: Request) -> Caller | None:
    """Returns the caller if it needs no access token, otherwise None."""
    settings = request.app.state.settings
    if settings.metrics_token is None:
        return ANONYMOUS if _is_of_this_machine(request) else None
    if _has_token(request, settings.metrics_token.get_secret_value().encode()):
        return ANONYMOUS
    if not settings.auth_enabled:
        raise Unauthenticated(
            "this needs the token of FASTPUBSUB_METRICS_TOKEN, sent as 'Authorization: Bearer <token>'"
        )
    return None


def _has_token(request: Request, token: bytes) -> bool:
    sent = every(request.scope, b"authorization")
    scheme, _, value = sent[0].partition(b" ") if len(sent) == 1 else (b"", b"", b"")
    return scheme.lower() == b"bearer" and hmac.compare_digest(value.strip(b" "), token)


def _is_of_this_machine(request: Request) -> bool:
    client = request.client
    if client is None or not is_loopback(client.host):
        return False
    return FORWARDED.isdisjoint(by_name(request.scope))
