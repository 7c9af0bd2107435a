"""Reads the answers of pulls for a handler: each payload once, if that is possible."""

import inspect
from contextlib import suppress
from typing import Any

from pydantic import create_model

from fastpubsub.client.decimals import exact_payloads
from fastpubsub.client.deliveries import Delivery, DeliveryList, hold_of
from fastpubsub.client.handlers import Handler
from fastpubsub.client.pulling import Read


def reader_of(handler: Handler) -> Read:
    if handler.wants_decimals:
        return _read_exactly
    # Of an `Annotated` type or a union the delivery would make something else than the handler.
    if handler.takes_payload_only and inspect.isclass(handler.payload_type):
        return _reader_as(handler.payload_type)
    return DeliveryList.model_validate_json


def _reader_as(payload_type: Any) -> Read:
    """With payloads of a type; if one of them does not fit, with all as they are: the handler says which, and why."""
    delivery = create_model("Delivery", __base__=Delivery, payload=(payload_type, ...))
    deliveries = create_model("DeliveryList", __base__=DeliveryList, data=(list[delivery], ...))

    def read(answer: bytes) -> DeliveryList:
        with suppress(BaseException):  # of a validator of theirs, too
            pulled = deliveries.model_validate_json(answer)
            for one in pulled.data:
                hold_of(one).is_validated = True
            return pulled
        return DeliveryList.model_validate_json(answer)

    return read


def _read_exactly(answer: bytes) -> DeliveryList:
    """With numbers as they were written, besides."""
    pulled = DeliveryList.model_validate_json(answer)
    for delivery, payload in zip(pulled.data, exact_payloads(answer) or [], strict=False):
        hold_of(delivery).exact_payload = payload
    return pulled
