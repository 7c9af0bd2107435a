"""The whole server, as far as the caller may see it."""

from fastapi import APIRouter, Request

from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.models import Overview
from fastpubsub.services.overview import look_at_all

router = APIRouter(prefix="/overview", tags=["overview"], route_class=ScopedRoute)

SEEING = requires("subscriptions:read", alternative="topics:read")


@router.get("", dependencies=[SEEING])
async def get_overview(request: Request) -> Overview:
    """Sum up the topics and subscriptions that the caller may see, and list what needs attention."""
    state, caller = request.app.state, request.state.caller
    return await look_at_all(
        state.database, state.settings, caller.objects("topics:read"), caller.objects("subscriptions:read")
    )
