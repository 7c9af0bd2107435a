"""What requests say of push."""

from fastapi import Request

from fastpubsub.models import NewPush
from fastpubsub.push.signing import made_secret
from fastpubsub.services.pushing import stored_push


async def given_push(request: Request, subscription_id: str, push: NewPush | None) -> tuple[str | None, str]:
    """What is stored of it, and what verifies signatures; whoever asks may have it pushed, and this server would."""
    request.state.caller.require("subscriptions:push", subscription_id)
    if push is None:
        return None, ""
    dispatcher, secret = request.app.state.dispatcher, made_secret(push.signature)
    await dispatcher.require(push.endpoint)
    return stored_push(push, secret.signs, dispatcher.sealer, subscription_id), secret.verifies
