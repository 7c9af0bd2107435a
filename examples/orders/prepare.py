"""Tables, a topic and its subscriptions, before anything else starts. Doing it again changes nothing."""

import os

from sqlalchemy import create_engine, text

from fastpubsub.client import Client

TABLES = """
create table if not exists stock (product text primary key, available integer not null check (available >= 0));
create table if not exists orders (
    id bigint generated always as identity primary key,
    product text not null,
    quantity integer not null,
    email text not null,
    status text not null default 'placed'
);
create table if not exists charges (order_id bigint primary key references orders, cents integer not null);
insert into stock values ('teapot', 10) on conflict do nothing;
"""

STEPS = {"inventory": "placed", "payment": "reserved", "email": "paid"}
"""Each worker gets the orders that have come so far."""

with create_engine(os.environ["DATABASE_URL"]).begin() as db:
    db.execute(text(TABLES))

with Client() as bus:  # FASTPUBSUB_URL, or http://localhost:8000
    bus.create_topic("orders", exist_ok=True)
    for name, status in STEPS.items():
        # A worker that lives keeps its messages; those of one that died go to another after 5 seconds.
        bus.create_subscription(
            name, "orders", filter={"status": [status]}, ack_deadline_seconds=5, backoff_min_seconds=1, exist_ok=True
        )
