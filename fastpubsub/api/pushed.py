"""What requests say of push."""

from fastapi import Request

from fastpubsub.models import NewPush
from fastpubsub.push.signing import new_secret
from fastpubsub.services.pushing import stored_push


async def given_push(request: Request, subscription_id: str, push: NewPush | None) -> tuple[str | None, str]:
    """What is stored of it, and a secret in it; the caller may have it pushed, and this server would push there."""
    request.state.caller.require("subscriptions:push", subscription_id)
    if push is None:
        return None, ""
    dispatcher, secret = request.app.state.dispatcher, new_secret()
    await dispatcher.require(push.endpoint)
    return stored_push(push, secret, dispatcher.sealer, subscription_id), secret
