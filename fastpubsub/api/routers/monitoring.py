"""The probes, which are open to everyone, and the metrics."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel

from fastpubsub.api.security import ScopedRoute, public, scraping
from fastpubsub.exceptions import Unavailable

STOPPING = "the server is shutting down"

router = APIRouter(route_class=ScopedRoute, tags=["monitoring"])


class Alive(BaseModel):
    status: Literal["alive"]


class Ready(BaseModel):
    status: Literal["ready"]


class NotReady(BaseModel):
    detail: str


@router.get("/liveness", dependencies=[public()])
async def liveness() -> Alive:
    """Say that the process answers; this says nothing about the database."""
    return Alive(status="alive")


@router.get("/readiness", dependencies=[public()], response_model=Ready, responses={503: {"model": NotReady}})
async def readiness(request: Request) -> Response:
    """Say whether requests should be sent here, within half a second, whatever the database does."""
    state = request.app.state
    problem = STOPPING if state.stopping.is_set() else await state.probes.problem()
    if problem is None:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"detail": problem}, 503, {"Retry-After": str(Unavailable.retry_after_seconds)})


@router.get("/metrics", dependencies=[scraping()], include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Return metrics in the text format of Prometheus."""
    return Response(await request.app.state.probes.metrics(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
