"""Serves the guide that `make docs` builds, where it is installed beside the server; the image has it."""

import base64
import hashlib
import mimetypes
import sys
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from fastpubsub.api.security import ScopedRoute, public
from fastpubsub.exceptions import NotFound

GUIDE = Path(sys.prefix) / "share/fastpubsub/guide"
INDEX = "docs/index.html"
# The only script that stands in a page: it chooses between light and dark before anything is drawn.
THEME = '\n      document.body.dataset.theme = localStorage.getItem("theme") || "auto";\n    '
DIGEST = base64.b64encode(hashlib.sha256(THEME.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src 'self' 'sha256-{DIGEST}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)

PAGE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
ASSET = {"Cache-Control": "public, max-age=300", "Content-Security-Policy": "default-src 'none'"}

QUERY = ("q", "check_keywords", "area", "highlight", "v")
"""What the scripts of the pages read of their own address: the search, and the release of a file."""

router = APIRouter(route_class=ScopedRoute, include_in_schema=False)


@router.get("/guide", dependencies=[public()])
async def guide(request: Request) -> Response:
    _find(INDEX)
    return RedirectResponse(f"{request.scope.get('root_path', '')}/guide/{INDEX}", 307)


@router.get("/guide/{name:path}", dependencies=[public(query=QUERY)])
async def guide_file(name: str) -> Response:
    media = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return FileResponse(_find(name), media_type=media, headers=PAGE if media == "text/html" else ASSET)


def _find(name: str) -> Path:
    if INDEX not in _files():
        raise NotFound("this server has no guide; the image has one, and `make docs` builds it")
    file = _files().get(name)
    if file is None:
        raise NotFound("there is no such page")
    return file


@cache
def _files() -> dict[str, Path]:
    """As they are at the first request: no other path leads to a file."""
    return {file.relative_to(GUIDE).as_posix(): file for file in GUIDE.rglob("*") if file.is_file()}
