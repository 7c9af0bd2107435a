"""The shop: stores orders and tells about them in one transaction, so that there is never one without the other."""

import os
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import create_engine, text

from fastpubsub.integrations.sqlalchemy import publish

app = FastAPI()
engine = create_engine(os.environ["DATABASE_URL"])

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern="^[^\0]*$")]
Quantity = Annotated[int, Field(ge=1, le=1000)]


class NewOrder(BaseModel):
    product: Text
    quantity: Quantity
    email: Text


@app.exception_handler(RequestValidationError)
async def refuse(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Without what was sent: it may be what no answer can repeat, such as half a character."""
    return JSONResponse({"detail": [{"loc": one["loc"], "msg": one["msg"]} for one in error.errors()]}, 422)


@app.post("/orders", status_code=202)
def place(order: NewOrder) -> dict[str, Any]:
    insert = "insert into orders (product, quantity, email) values (:product, :quantity, :email) returning id"
    with engine.begin() as db:
        order_id = db.execute(text(insert), order.model_dump()).scalar_one()
        publish(db, "orders", {"id": order_id, "status": "placed", **order.model_dump()})
    return {"id": order_id, "status": "placed"}


@app.get("/orders/{order_id}")
def show(order_id: Annotated[int, Field(ge=1, lt=2**63)]) -> dict[str, Any]:
    select = "select o.id, o.status, c.cents from orders o left join charges c on c.order_id = o.id where o.id = :id"
    with engine.connect() as db:
        found = db.execute(text(select), {"id": order_id}).mappings().first()
    if found is None:
        raise HTTPException(404)
    return dict(found)


@app.put("/stock/{product}", status_code=204)
def restock(product: Text, available: Quantity) -> None:
    insert = (
        "insert into stock values (:product, :available) on conflict (product) do update set available = :available"
    )
    with engine.begin() as db:
        db.execute(text(insert), {"product": product, "available": available})
