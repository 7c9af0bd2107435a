"""A chat: what people say goes to a topic, and everybody's page follows it over a WebSocket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, StringConstraints

from fastpubsub.client import AsyncClient
from fastpubsub.integrations.fastapi import Bus, BusClient, BusPublisher

TOPIC = "chat"
RECENT = 50
WEEK_SECONDS = 7 * 24 * 60 * 60

bus = Bus()  # FASTPUBSUB_URL, or http://localhost:8000


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    await bus.client.create_topic(TOPIC, retention_seconds=WEEK_SECONDS, exist_ok=True)
    yield


app = FastAPI(lifespan=bus.lifespan_with(lifespan))


def text(longest: int) -> StringConstraints:
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=longest, pattern="^[^\0]*$")


class Said(BaseModel):
    name: Annotated[str, text(40)]
    text: Annotated[str, text(2000)]


@app.exception_handler(RequestValidationError)
async def refuse(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Without what was sent: it may be what no answer can repeat, such as half a character."""
    return JSONResponse({"detail": [{"loc": one["loc"], "msg": one["msg"]} for one in error.errors()]}, 422)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("chat.html"))


@app.post("/messages", status_code=201)
async def say(said: Said, publisher: BusPublisher) -> dict[str, str]:
    return {"id": await publisher.publish(TOPIC, said)}


@app.websocket("/live")
async def live(websocket: WebSocket, client: BusClient, after: UUID | None = None) -> None:
    """Everything after a message that the page has shown already, or the last messages and what comes."""
    await websocket.accept()
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send(websocket, client, after))
        async for _ in websocket.iter_text():  # pages say nothing here; it ends when they go
            pass
        sending.cancel()


async def send(websocket: WebSocket, client: AsyncClient, after: UUID | None) -> None:
    with suppress(WebSocketDisconnect):
        async for message in client.follow(TOPIC, after=after, recent=RECENT):
            await websocket.send_text(message.model_dump_json(include={"id", "created_at", "payload"}))
