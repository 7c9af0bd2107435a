"""`/`: leads people to the console, and tells programs what is where."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from fastpubsub import __version__
from fastpubsub.api.security import ScopedRoute, public
from fastpubsub.config import Settings

API = {
    "overview": "/overview",
    "topics": "/topics",
    "subscriptions": "/subscriptions",
    "clients": "/clients",
    "audit": "/audit",
    "token": "/oauth/token",
    "liveness": "/liveness",
    "readiness": "/readiness",
    "metrics": "/metrics",
}
DOCS = {"docs": "/docs", "redoc": "/redoc", "openapi": "/openapi.json", "guide": "/guide"}

router = APIRouter(route_class=ScopedRoute, include_in_schema=False)


@router.get("/", dependencies=[public()])
async def entrance(request: Request) -> Response:
    settings, root_path = request.app.state.settings, request.scope.get("root_path", "")
    headers = {"Vary": "Accept"}
    if settings.console_enabled and "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"{root_path}/console", 307, headers)
    about = {"name": "fastpubsub", "version": __version__, "is_authentication_on": settings.auth_enabled}
    return JSONResponse(about | {name: root_path + path for name, path in _links(settings).items()}, headers=headers)


def _links(settings: Settings) -> dict[str, str]:
    console = {"console": "/console"} if settings.console_enabled else {}
    return console | API | (DOCS if settings.api_docs_enabled else {})
