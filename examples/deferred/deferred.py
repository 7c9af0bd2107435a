"""Work that takes long is done later: an upload is answered at once, a worker counts its words."""

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Literal
from uuid import UUID, uuid4

from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel

from fastpubsub.client import Message, Reject, Topic
from fastpubsub.integrations.fastapi import Bus, BusPublisher

FOLDER = Path("uploads")
MAX_BYTES = 10_000_000
ATTEMPTS = 3

bus = Bus(subscribe=False)  # the subscriber has a process of its own: fastpubsub worker deferred:bus.worker


class Upload(BaseModel):
    id: UUID


class Status(BaseModel):
    status: Literal["waiting", "working", "done", "failed"]
    attempts: int = 0
    reason: str | None = None
    words: dict[str, int] | None = None


uploads = Topic("uploads", Upload)
app = FastAPI(lifespan=bus.lifespan)


@app.post("/uploads", status_code=202)
async def upload(request: Request, response: Response, publisher: BusPublisher) -> Status:
    new, status = Upload(id=uuid4()), Status(status="waiting")
    await asyncio.to_thread(store, new.id, await read(request), status)
    await publisher.publish(uploads, new)
    response.headers["Location"] = f"/uploads/{new.id}"
    return status


async def read(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BYTES:
            raise HTTPException(413, f"{MAX_BYTES} bytes are the most")
    return bytes(content)


@app.get("/uploads/{id}", response_model_exclude_none=True)
def show(id: UUID) -> Status:
    if not status_of(id).exists():
        raise HTTPException(404)
    return Status.model_validate_json(status_of(id).read_bytes())


@bus.subscriber("word-counts", topic=uploads, max_delivery_attempts=ATTEMPTS, backoff_min_seconds=1)
def count_words(upload: Upload, message: Message) -> None:
    attempts = message.delivery_attempts
    save(upload.id, Status(status="working", attempts=attempts))
    try:
        words = re.findall(r"\w+", text_of(upload.id).read_text("utf-8").lower())
    except UnicodeDecodeError:  # as often as it is tried
        reason = "this is not UTF-8 text"
        save(upload.id, Status(status="failed", attempts=attempts, reason=reason))
        raise Reject(reason) from None
    except OSError as error:  # may go better next time
        save(upload.id, Status(status="failed", attempts=attempts, reason=f"attempt {attempts} of {ATTEMPTS}: {error}"))
        raise
    save(upload.id, Status(status="done", attempts=attempts, words=dict(Counter(words).most_common(3))))


def store(id: UUID, content: bytes, status: Status) -> None:
    FOLDER.mkdir(exist_ok=True)
    text_of(id).write_bytes(content)
    save(id, status)


def save(id: UUID, status: Status) -> None:
    """Whoever reads gets the old one or the new one, and never a half."""
    half = status_of(id).with_suffix(".half")
    half.write_text(status.model_dump_json())
    half.replace(status_of(id))


def text_of(id: UUID) -> Path:
    return FOLDER / f"{id}.txt"


def status_of(id: UUID) -> Path:
    return FOLDER / f"{id}.json"
