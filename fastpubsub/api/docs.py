"""Serves Swagger UI, ReDoc and the OpenAPI document from this package: the pages work without internet access."""

import json
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from fastpubsub.api.security import ScopedRoute, public
from fastpubsub.exceptions import NotFound

STATIC = Path(__file__).parent / "static"
ASSETS = {
    "favicon-32x32.png": "image/png",
    "redoc.js": "text/javascript",
    "redoc.standalone.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "swagger.js": "text/javascript",
}
# Both set styles from scripts; ReDoc searches in a worker that it makes from a blob and would load a logo from outside.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)

PAGE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}

router = APIRouter(route_class=ScopedRoute, include_in_schema=False)


@router.get("/openapi.json", dependencies=[public()])
async def openapi(request: Request) -> Response:
    return Response(json.dumps(request.app.openapi(), ensure_ascii=False), media_type="application/json")


@router.get("/docs", dependencies=[public()])
async def swagger() -> Response:
    return _page("swagger.html")


@router.get("/redoc", dependencies=[public()])
async def redoc() -> Response:
    return _page("redoc.html")


@router.get("/docs/static/{name}", dependencies=[public()])
async def static(name: str) -> Response:
    if name not in ASSETS:
        raise NotFound("there is no such file")
    headers = {"Cache-Control": "public, max-age=86400", "Content-Security-Policy": "default-src 'none'"}
    return FileResponse(STATIC / name, media_type=ASSETS[name], headers=headers)


def _page(name: str) -> Response:
    return FileResponse(STATIC / name, media_type="text/html", headers=PAGE)
