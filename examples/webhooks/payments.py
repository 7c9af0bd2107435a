"""A service that a subscription is pushed to: it books each payment once, however often it comes."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from fastpubsub.integrations.webhooks import Pushed, Webhooks

FILE = os.environ.get("PAYMENTS", "payments.db")
TABLE = (
    "create table if not exists payments (message_id text primary key, account text not null, cents integer not null)"
)

app = FastAPI()
webhooks = Webhooks(os.environ["PUSH_SECRETS"].split())


class Payment(BaseModel):
    account: str
    cents: int


def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(FILE, timeout=10, check_same_thread=False)) as connection:
        connection.execute("pragma journal_mode = wal")  # one that writes waits for no one that reads
        connection.execute(TABLE)
        with connection:  # commits, or rolls back
            yield connection


# With this scope it commits before the answer is sent, which is what acknowledges the message.
Database = Annotated[sqlite3.Connection, Depends(database, scope="function")]


@app.post("/payments", status_code=204)
def book(pushed: Annotated[Pushed[Payment], Depends(webhooks.of(Payment))], connection: Database) -> None:
    """The id of the message is in the row of the payment, so what was booked is not booked again."""
    row = (pushed.id, pushed.payload.account, pushed.payload.cents)
    connection.execute("insert into payments values (?, ?, ?) on conflict do nothing", row)


@app.get("/accounts/{account}")
def balance(account: str, connection: Database) -> dict[str, int]:
    """The sum of what was booked."""
    query = "select count(*), coalesce(sum(cents), 0) from payments where account = ?"
    payments, cents = connection.execute(query, (account,)).fetchone()
    return {"payments": payments, "cents": cents}
