"""A topic as an application declares it: its id, and the type of its payloads."""

import json
import types
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeAlias, TypeVar, Union, get_args, get_origin, overload

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from fastpubsub.client.signatures import bare

T = TypeVar("T")


class Topic(Generic[T]):
    """A topic with payloads of one type: `bus.publish(orders, Order(...))` takes nothing else.

    `payload_type` is a Pydantic model, a dataclass, a TypedDict, or a union of them (`Topic[Order | Refund](...)`);
    without it payloads may be anything. `retention_seconds` is how long settled messages are kept for replay; None
    leaves it to the server. With `schema=True` the topic is declared with the JSON Schema of the type, which holds for
    every publisher.
    """

    @overload
    def __init__(self: "Topic[Any]", id: str, *, retention_seconds: int | None = None) -> None: ...
    @overload
    def __init__(
        self, id: str, payload_type: type[T], *, retention_seconds: int | None = None, schema: bool = False
    ) -> None: ...
    @overload
    def __init__(
        self, id: str, payload_type: Any, *, retention_seconds: int | None = None, schema: bool = False
    ) -> None: ...
    def __init__(
        self,
        id: str,  # noqa: A002 - the name of the API
        payload_type: Any = Any,
        *,
        retention_seconds: int | None = None,
        schema: bool = False,
    ) -> None:
        self.id = id
        self.payload_type = payload_type
        self.retention_seconds = retention_seconds
        try:
            self._checks = [_check_of(one) for one in alternatives(payload_type)]
            self.schema = _schema_of(id, payload_type) if schema else None
        except PydanticUserError as error:
            raise TypeError(f"topic {id}: Pydantic cannot read a payload as {payload_type}: {error}") from None

    def __repr__(self) -> str:
        return f"Topic({self.id!r}, {name_of(self.payload_type)})"

    def check(self, payload: object) -> None:
        """Raises `TypeError` for a payload of another type."""
        if not any(fits(payload) for fits in self._checks):
            wanted = " or ".join(name_of(one) for one in alternatives(self.payload_type))
            raise TypeError(f"topic {self.id} takes {wanted}, not {name_of(type(payload))}")


def _schema_of(topic_id: str, payload_type: Any) -> dict[str, Any]:
    """Of payloads as they are published."""
    if payload_type is Any:
        raise TypeError(f"topic {topic_id}: a schema needs the type of its payloads")
    schema: dict[str, Any] = json.loads(json.dumps(TypeAdapter(payload_type).json_schema(mode="serialization")))
    return schema


AnyTopic: TypeAlias = str | Topic[Any]
"""A topic, or only its id."""


def as_topic(topic: AnyTopic) -> Topic[Any]:
    return topic if isinstance(topic, Topic) else Topic(topic)


def alternatives(kind: Any) -> Iterator[Any]:
    kind = bare(kind)
    if get_origin(kind) in (Union, types.UnionType):
        for one in get_args(kind):
            yield from alternatives(one)
    else:
        yield kind


def _check_of(kind: Any) -> Callable[[object], bool]:
    """Looks only at the class of an instance: Pydantic would take a dict for a model."""
    if kind is Any:
        return lambda _payload: True
    if isinstance(kind, type) and not get_args(kind) and not issubclass(kind, dict):
        return lambda payload: isinstance(payload, kind)
    adapter = TypeAdapter(kind)

    def fits(payload: object) -> bool:
        try:
            adapter.validate_python(payload, strict=True)
        except ValidationError:
            return False
        return True

    return fits


def name_of(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind)) if not get_args(kind) else str(kind)
