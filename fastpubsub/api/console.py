"""Serves the console: a page and its modules, which are a client of the public API and nothing else."""

import base64
import hashlib
import json
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from fastpubsub.api.security import ScopedRoute, public
from fastpubsub.exceptions import NotFound

CONSOLE = Path(__file__).parents[1] / "console"
TYPES = {".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript", ".svg": "image/svg+xml"}
MODULES = {
    "preact": "preact.mjs",
    "preact/hooks": "hooks.mjs",
    "htm": "htm.mjs",
    "@preact/signals": "signals.mjs",
    "@preact/signals-core": "signals-core.mjs",
}
"""How the vendored modules call each other, by file."""

router = APIRouter(route_class=ScopedRoute, include_in_schema=False)


@router.get("/console", dependencies=[public()])
async def console() -> Response:
    page, policy = _page()
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
    }
    return Response(page, media_type="text/html", headers=headers)


@router.get("/console/{release}/{name:path}", dependencies=[public()])
async def console_file(release: str, name: str) -> Response:
    """The release is a digest of all files, so a page never gets modules of another one."""
    file = assets().get(name)
    if release != _release() or file is None:
        raise NotFound("there is no such file")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Content-Security-Policy": "default-src 'none'"}
    return FileResponse(file, media_type=TYPES[file.suffix], headers=headers)


@cache
def assets() -> dict[str, Path]:
    files = sorted(file for file in CONSOLE.rglob("*") if file.suffix in TYPES)
    return {file.relative_to(CONSOLE).as_posix(): file for file in files}


@cache
def _release() -> str:
    digest = hashlib.sha256()
    for name, file in assets().items():
        digest.update(name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _page() -> tuple[str, str]:
    """Returns the page and its policy. No other script may stand in a page than one whose digest the policy has."""
    base = f"console/{_release()}"
    imports = json.dumps({"imports": {name: f"./{base}/vendor/{file}" for name, file in MODULES.items()}})
    page = (CONSOLE / "index.html").read_text().replace("{base}", base).replace("{imports}", imports)
    digest = base64.b64encode(hashlib.sha256(imports.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return page, policy
