"""A shop: an order, and each step of it, is stored and published in one transaction, so any process may die."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import Connection, create_engine, text

from fastpubsub.client import Reject, Topic
from fastpubsub.integrations.fastapi import Bus
from fastpubsub.integrations.sqlalchemy import once, publish, transaction

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern="^[^\0]*$")]
Quantity = Annotated[int, Field(ge=1, le=1000)]


class Order(BaseModel):
    id: int = 0  # the database gives orders their ids and their status
    status: str = "placed"
    product: Text
    quantity: Quantity
    email: Text


engine = create_engine(os.environ["DATABASE_URL"])
database = transaction(engine)
Database = Annotated[Connection, Depends(database, scope="function")]  # committed before the answer
bus, orders = Bus(subscribe=False), Topic("orders", Order)  # FASTPUBSUB_URL, or http://localhost:8000
step = partial(bus.subscriber, topic=orders, once=once(database), ack_deadline_seconds=5, backoff_min_seconds=1)
app = FastAPI(lifespan=bus.lifespan)
app.add_exception_handler(RequestValidationError, lambda *_: Response("this is not an order", 422))


@app.post("/orders", status_code=202)
def place(order: Order, db: Database) -> Order:
    return change(db, order, "insert into orders (product, quantity, email) values (:product, :quantity, :email)")


@app.get("/orders/{n}")
def show(n: Annotated[int, Field(ge=1, lt=2**63)], db: Database) -> Any:
    return db.scalar(text("select to_json(o) from orders o where id = :n"), {"n": n}) or Response("", 404)


@app.put("/stock/{product}", status_code=204)
def restock(product: Text, available: Quantity, db: Database) -> None:
    db.execute(text("update stock set available = :n where product = :product"), {"n": available, "product": product})


@step("inventory", filter={"status": ["placed"]})
def reserve(order: Order, db: Database) -> None:
    change(db, order, "update orders set status = 'reserved' where id = :id")
    take = "update stock set available = available - :quantity where product = :product and available >= :quantity"
    if db.execute(text(take), order.model_dump()).rowcount == 0:
        raise Reject(f"there are no {order.quantity} of {order.product}")  # a dead letter; the transaction is undone


@step("payment", filter={"status": ["reserved"]})
def charge(order: Order, db: Database) -> None:  # a real bank gets the id of the order as its idempotency key
    change(db, order, "update orders set status = 'paid', cents = cents + 1999 * quantity where id = :id")


@step("email", filter={"status": ["paid"]})
def confirm(order: Order, db: Database) -> None:
    change(db, order, "update orders set status = 'done' where id = :id")
    print(f"to {order.email}: order {order.id} is on its way", flush=True)  # again, if the worker dies right here


def change(db: Connection, order: Order, statement: str) -> Order:
    changed = Order.model_validate(db.execute(text(f"{statement} returning *"), order.model_dump()).mappings().one())
    publish(db, orders, changed)
    return changed


if __name__ == "__main__":
    with engine.begin() as db:
        db.execute(text(Path(__file__).with_name("tables.sql").read_text()))
