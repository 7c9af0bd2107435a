"""A call of the bus in memory, and the routes that answer it."""

import base64
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from fastpubsub import models
from fastpubsub.client.decimals import loads_exactly
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.json_text import check_json
from fastpubsub.testing.store.store import Store

Model = TypeVar("Model", bound=BaseModel)
TIME: TypeAdapter[datetime] = TypeAdapter(models.Time)


class Call(NamedTuple):
    ids: list[str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def prefers_representation(self) -> bool:
        return self.headers.get("prefer", "") == "return=representation"

    def read(self, model: type[Model]) -> Model:
        check_json(self.body)
        read, exact = model.model_validate_json(self.body), loads_exactly(self.body)
        for name, member_ in (("filter", "filter"), ("schema", "payload_schema")):
            if member_ in read.model_fields_set:
                setattr(read, member_, exact[name])
        return read

    def number(self, name: str, default: int | None, low: int, high: int) -> Any:
        value = self.query.get(name)
        if value is None:
            return default
        if not value.isdecimal() or not low <= int(value) <= high:
            raise InvalidRequest(f"query.{name}: Input should be a whole number from {low} to {high}")
        return int(value)

    def time(self, name: str) -> datetime | None:
        value = self.query.get(name)
        try:
            return None if value is None else TIME.validate_python(value)
        except ValidationError as error:
            raise InvalidRequest(f"query.{name}: {models.sentence(error.errors()[0])}") from None

    def flag(self, name: str) -> bool:
        value = self.query.get(name)
        if value not in (None, "true", "false"):
            raise InvalidRequest(f"query.{name}: Input should be true or false")
        return value == "true"

    @property
    def consumer_id(self) -> str:
        value = self.query.get("consumer_id", "")
        if not 1 <= len(value) <= 255:
            raise InvalidRequest("query.consumer_id: String should have 1 to 255 characters")
        return value

    @property
    def batch_size(self) -> int:
        """Of a pull, whose other parameters are refused here as well."""
        self.consumer_id  # noqa: B018 - to refuse it
        self.number("wait_seconds", 0, 0, 20)
        return int(self.number("batch_size", 10, 1, 100))

    @property
    def wanted_letters(self) -> models.NewRedrive:
        names = ("reason", "died_after", "died_before")
        try:
            return models.NewRedrive.model_validate({name: self.query.get(name) for name in names})
        except ValidationError as error:
            (first, *_) = error.errors()
            raise InvalidRequest(f"query.{first['loc'][0]}: {first['msg']}") from None

    @property
    def after(self) -> int:
        """The position in the token of a page."""
        token = self.query.get("page_token")
        if token is None:
            return 0
        if "offset" in self.query:
            raise InvalidRequest("query.page_token: give it or `offset`, not both")
        try:
            return int(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        except ValueError:
            raise InvalidRequest("query.page_token: take it as it is from `next_page_token` of an answer") from None

    @staticmethod
    def token(after: int) -> str:
        """Of the page after a position."""
        return base64.urlsafe_b64encode(str(after).encode()).decode().rstrip("=")

    @property
    def part(self) -> str:
        return self.query.get("q", "").lower()

    @property
    def includes_metrics(self) -> bool:
        return self.query.get("include") == "metrics"

    def page(self, found: list[Any]) -> list[Any]:
        offset = self.number("offset", 0, 0, 2**31 - 1)
        return found[offset : offset + self.number("limit", 10, 1, 100)]


Answer = tuple[int, "BaseModel | bytes | None"]
Handler = Callable[[Any, Call], Answer]


class Route(NamedTuple):
    method: str
    path: re.Pattern[str]
    handler: Handler
    action: str | None
    """What is recorded of it: the name of the operation; None when it changes no object."""


ROUTES: list[Route] = []


def route(method: str, path: str, action: str | None = None) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        ROUTES.append(Route(method, re.compile(path.replace("{id}", "([^/]+)")), handler, action))
        return handler

    return register


class Part:
    """Some of the routes, and what all of them share."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.left: Counter[tuple[str, str]] = Counter()
        """How often a consumer has said that it leaves, by the path of the subscription."""
        self.waiting: list[tuple[str, str, datetime]] = []
        """The pulls that wait: the path of the subscription, the consumer, and since when."""
        self.changes: list[models.RecordedChange] = []
