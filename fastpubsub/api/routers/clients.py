"""`/clients`."""

from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response

from fastpubsub.api.recording import change_by
from fastpubsub.api.render import NO_CONTENT
from fastpubsub.api.requests import Limit, Offset
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.models import ChangedClient, Client, ClientCredentials, ClientList, NewClient, NewSecret, RotatedSecret
from fastpubsub.services import clients

router = APIRouter(prefix="/clients", tags=["clients"], route_class=ScopedRoute)


@router.post("", status_code=201, dependencies=[requires("clients:create")])
async def create_client(request: Request, body: NewClient) -> ClientCredentials:
    """Create a client; its secret is shown only now."""
    state = request.app.state
    return await clients.create_client(
        state.database, state.authenticator.hasher, body, request.state.caller, await change_by(request)
    )


@router.get("", dependencies=[requires("clients:read")])
async def list_clients(request: Request, offset: Offset = 0, limit: Limit = 10) -> ClientList:
    """List clients, ordered by id."""
    data = await clients.list_clients(request.app.state.database, request.state.caller, offset, limit)
    return ClientList(data=data)


@router.get("/{client_id}", dependencies=[requires("clients:read", "client_id")])
async def get_client(request: Request, client_id: UUID) -> Client:
    """Get a client."""
    return await clients.get_client(request.app.state.database, client_id)


@router.put("/{client_id}", dependencies=[requires("clients:update", "client_id")])
async def update_client(request: Request, client_id: UUID, body: ChangedClient) -> Client:
    """Change a client; this ends all of its tokens."""
    state = request.app.state
    return await clients.update_client(
        state.database, state.authenticator, client_id, body, request.state.caller, await change_by(request)
    )


@router.post("/{client_id}/secrets", status_code=201, dependencies=[requires("clients:update", "client_id")])
async def rotate_client_secret(request: Request, client_id: UUID, body: NewSecret) -> RotatedSecret:
    """Give a client another secret; the one before stays good for a while."""
    state = request.app.state
    return await clients.rotate_client_secret(
        state.database,
        state.authenticator,
        client_id,
        body.old_secret_seconds,
        request.state.caller,
        await change_by(request),
    )


@router.delete(
    "/{client_id}/secrets/{which}",
    status_code=204,
    response_class=Response,
    dependencies=[requires("clients:update", "client_id")],
)
async def revoke_client_secret(request: Request, client_id: UUID, which: Literal["old", "new"]) -> Response:
    """End one of the two secrets of a client, and all of its tokens."""
    state = request.app.state
    await clients.revoke_client_secret(
        state.database, state.authenticator, client_id, which == "new", request.state.caller, await change_by(request)
    )
    return Response(status_code=204)


@router.delete(
    "/{client_id}", status_code=204, response_class=Response, dependencies=[requires("clients:delete", "client_id")]
)
async def delete_client(request: Request, client_id: UUID) -> Response:
    """Delete a client; this ends all of its tokens."""
    state = request.app.state
    await clients.delete_client(
        state.database, state.authenticator, client_id, request.state.caller, await change_by(request)
    )
    return NO_CONTENT
