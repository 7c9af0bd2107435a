"""The client of a fastpubsub server: publish, pull, settle, manage.

from fastpubsub.client import Client

with Client("http://localhost:8000") as bus:
    bus.publish("orders", {"order_id": 1})
"""

from fastpubsub.client.clients import AsyncClient, Client
from fastpubsub.client.current import MessageFilter
from fastpubsub.client.deliveries import Delivery, Reject, Retry
from fastpubsub.client.dependencies import Depends
from fastpubsub.client.errors import (
    AlreadyExists,
    BadRequest,
    BusError,
    Closed,
    ConnectionFailed,
    InvalidRequest,
    NoLongerHeld,
    NotFound,
    PermissionDenied,
    Refused,
    ServerError,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
)
from fastpubsub.client.exchange import Policy
from fastpubsub.client.parts import part_of, parts_of
from fastpubsub.client.publishers import AsyncPublisher, Limits, Publisher
from fastpubsub.client.requests import Outgoing, Settlement, Transaction
from fastpubsub.client.router import Router
from fastpubsub.client.topics import Topic
from fastpubsub.client.worker import Worker
from fastpubsub.models import (
    DeadLetter,
    Message,
    Settled,
    SettledAndPulled,
    Subscription,
    SubscriptionMetrics,
    TopicMessage,
)

__all__ = [
    "AlreadyExists",
    "AsyncClient",
    "AsyncPublisher",
    "BadRequest",
    "BusError",
    "Client",
    "Closed",
    "ConnectionFailed",
    "DeadLetter",
    "Delivery",
    "Depends",
    "InvalidRequest",
    "Limits",
    "Message",
    "MessageFilter",
    "NoLongerHeld",
    "NotFound",
    "Outgoing",
    "PermissionDenied",
    "Policy",
    "Publisher",
    "Refused",
    "Reject",
    "Retry",
    "Router",
    "ServerError",
    "Settled",
    "SettledAndPulled",
    "Settlement",
    "Subscription",
    "SubscriptionMetrics",
    "TooLarge",
    "TooManyRequests",
    "Topic",
    "TopicMessage",
    "Transaction",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
    "Worker",
    "part_of",
    "parts_of",
]
