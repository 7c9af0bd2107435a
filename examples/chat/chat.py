"""A chat: what people say goes to a topic, and everybody's page follows it over a WebSocket."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from fastpubsub.client import AsyncClient, Topic
from fastpubsub.integrations.fastapi import Bus, BusClient, BusPublisher


class Said(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)

    name: Annotated[str, Field(min_length=1, max_length=40, pattern="^[^\0]*$")]
    text: Annotated[str, Field(min_length=1, max_length=2000, pattern="^[^\0]*$")]


chat = Topic("chat", Said, retention_seconds=7 * 24 * 60 * 60)
bus = Bus(topics=[chat])  # FASTPUBSUB_URL, or http://localhost:8000
app = FastAPI(lifespan=bus.lifespan)


@app.exception_handler(RequestValidationError)
async def refuse(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Without what was sent: it may be what no answer can repeat, such as half a character."""
    return JSONResponse({"detail": [{"loc": one["loc"], "msg": one["msg"]} for one in error.errors()]}, 422)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("chat.html"))


@app.post("/messages", status_code=201)
async def say(said: Said, publisher: BusPublisher) -> dict[str, str]:
    return {"id": await publisher.publish(chat, said)}


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
        async for message in client.follow(chat.id, after=after, recent=50):
            await websocket.send_text(message.model_dump_json(include={"id", "created_at", "payload"}))
