"""What happens to an order: inventory, payment, e-mail. Any of them may die at any time; nothing is lost or done twice.

A message may come twice, so each step looks first whether it was done. It changes the tables and publishes what comes
next in one transaction: both are there, or none.
"""

import os
import time

from pydantic import BaseModel
from sqlalchemy import Connection, create_engine, text

from fastpubsub.client import Reject, Worker
from fastpubsub.integrations.sqlalchemy import publish

CENTS = 1999

engine = create_engine(os.environ["DATABASE_URL"])
inventory, payment, email = Worker(), Worker(), Worker()


class Order(BaseModel):
    id: int
    product: str
    quantity: int
    email: str


@inventory.subscriber("inventory")
def reserve(order: Order) -> None:
    take = "update stock set available = available - :quantity where product = :product and available >= :quantity"
    with engine.begin() as db:
        if not advance(db, order, "placed", "reserved"):
            return
        if db.execute(text(take), order.model_dump()).rowcount == 0:
            raise Reject(
                f"there are no {order.quantity} of {order.product}"
            )  # a dead letter; the transaction is undone


@payment.subscriber("payment")
def charge(order: Order) -> None:
    insert = "insert into charges values (:id, :cents) on conflict do nothing"
    with engine.begin() as db:
        if db.execute(text(insert), {"id": order.id, "cents": order.quantity * CENTS}).rowcount == 0:
            return  # this order was charged before
        ask_the_bank(reference=order.id)
        advance(db, order, "reserved", "paid")


def ask_the_bank(reference: int) -> None:
    """A real one is given the reference as idempotency key: the second request for it moves no money."""
    time.sleep(0.2)


@email.subscriber("email")
def confirm(order: Order) -> None:
    with engine.begin() as db:
        if advance(db, order, "paid", "done"):
            # What was sent cannot be taken back: who dies right behind this line sends it again.
            print(f"to {order.email}: order {order.id} is on its way", flush=True)


def advance(db: Connection, order: Order, before: str, after: str) -> bool:
    """False when it is not where it should be: this was done already."""
    update = text("update orders set status = :after where id = :id and status = :before")
    if db.execute(update, {"id": order.id, "before": before, "after": after}).rowcount == 0:
        return False
    publish(db, "orders", {"status": after, **order.model_dump()})
    return True
