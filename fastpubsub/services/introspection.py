"""Says whether an access token is good now (RFC 7662)."""

from fastpubsub.database.calls import Database
from fastpubsub.exceptions import Unauthenticated
from fastpubsub.models import Introspection, TokenRequest
from fastpubsub.services.authenticator import Authenticator
from fastpubsub.services.tokens import authenticate_client


async def introspect_token(
    database: Database, authenticator: Authenticator, asking: TokenRequest, token: str, address: str | None = None
) -> Introspection:
    """Any client may ask: the holder of a token can read its content anyway, and try whether it is good."""
    await authenticate_client(database, authenticator.hasher, authenticator.attempts, asking, address)
    try:
        grant = await authenticator.inspect(token.encode())
    except Unauthenticated:
        return Introspection(active=False)
    return Introspection(
        active=True,
        client_id=grant.caller.client_id,
        sub=grant.caller.client_id,
        scope=" ".join(sorted(grant.caller.scopes)),
        token_type="Bearer",  # noqa: S106
        exp=grant.expires_at,
        filter=grant.caller.filter_text,
    )
