"""The topics and subscribers of an application as an AsyncAPI 3 document."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import PydanticUserError, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema, to_jsonable_python

from fastpubsub.client.router import Registration, Router
from fastpubsub.client.topics import Topic, alternatives, as_topic, name_of
from fastpubsub.client.worker import Worker

VERSION = "3.0.0"
SCHEMA_FORMAT = "application/schema+json;version=draft-07"
SCHEMAS = "#/components/schemas/{model}"
ANYTHING = {"type": "object"}
"""Every payload is a JSON object."""

UNKNOWN = "message"
"""The name of a message of which no type says what it is."""

Document = dict[str, Any]


def asyncapi(
    router: Router, *, title: str = "fastpubsub", version: str = "1.0.0", server: str | None = None
) -> Document:
    """Returns the AsyncAPI 3.0 document of a worker, a router, or a bus of the FastAPI integration.

    Each topic is a channel, each subscriber an operation that receives, and what it publishes, like each of the given
    `topics`, an operation that sends. `title` and `version` are those of the application, `server` the URL of
    fastpubsub. Raises `TypeError` for a payload that has no JSON Schema.
    """
    worker = getattr(router, "worker", router)
    channels = _Channels()
    operations: Document = {}
    for registration in worker.registrations():
        operations[registration.subscription_id] = channels.received(registration)
        if (published := registration.handler.publish_to) is not None:
            topic = as_topic(published)
            operations[f"{registration.subscription_id}.{topic.id}"] = channels.sent(topic)
    for topic in worker.declared_topics if isinstance(worker, Worker) else ():
        operations.setdefault(f"publish.{topic.id}", channels.sent(topic))
    document: Document = {"asyncapi": VERSION, "info": {"title": title, "version": version}}
    document |= {} if server is None else {"servers": {"fastpubsub": _server(server)}}
    document["defaultContentType"] = "application/json"
    return document | channels.described() | {"operations": operations}


class _Kind(NamedTuple):
    """A type of payloads, and which of its two schemas counts: of what is written, or of what is read."""

    payload_type: Any
    mode: JsonSchemaMode


class _Channels:
    """The topics, and the types of what they carry, by name."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic[Any] | None] = {}
        self._kinds: dict[str, dict[str, _Kind]] = {}

    def received(self, registration: Registration) -> Document:
        topic = None if registration.declaration is None else registration.declaration.topic
        name = registration.subscription_id if topic is None else topic.id
        self._add(name, topic)
        kinds = dict(_kinds(registration.handler.payload_type, "validation"))
        if topic is None or topic.payload_type is Any:
            for kind, how in kinds.items():
                self._kinds[name].setdefault(kind, how)
        settings = {} if registration.declaration is None else registration.declaration.settings
        operation = _operation("receive", name, [kind for kind in kinds if kind in self._kinds[name]])
        function = registration.handler.function
        described = inspect.getdoc(function) if inspect.isroutine(function) else None
        return {
            **operation,
            **({"description": described} if described else {}),
            "x-fastpubsub-subscription": {"id": registration.subscription_id, **to_jsonable_python(settings)},
        }

    def sent(self, topic: Topic[Any]) -> Document:
        self._add(topic.id, topic)
        return _operation("send", topic.id, [kind for kind, _ in _kinds(topic.payload_type, "serialization")])

    def described(self) -> Document:
        """The channels, and the schemas that they refer to."""
        payloads, schemas = self._schemas()
        channels = {}
        for name, topic in self._topics.items():
            messages = {
                kind: {"name": kind, "payload": {"schemaFormat": SCHEMA_FORMAT, "schema": payloads[name, kind]}}
                for kind in self._kinds[name]
            }
            channels[name] = {
                "address": None if topic is None else topic.id,
                "messages": messages or {UNKNOWN: {"name": UNKNOWN, "payload": ANYTHING}},
            }
        return {"channels": channels, **({"components": {"schemas": schemas}} if schemas else {})}

    def _add(self, name: str, topic: Topic[Any] | None) -> None:
        self._topics[name] = self._topics.get(name) or topic
        kinds = self._kinds.setdefault(name, {})
        if topic is not None and topic.payload_type is not Any:
            kinds |= dict(_kinds(topic.payload_type, "serialization"))

    def _schemas(self) -> tuple[dict[tuple[str, str], JsonSchemaValue], Document]:
        inputs = [
            ((name, kind), how.mode, _adapter(name, how.payload_type))
            for name, kinds in self._kinds.items()
            for kind, how in kinds.items()
        ]
        found, definitions = TypeAdapter.json_schemas(inputs, ref_template=SCHEMAS, schema_generator=_Plain)
        return {key: schema for (key, _), schema in found.items()}, definitions.get("$defs", {})


class _Plain(GenerateJsonSchema):
    """What draft 7 has: no `discriminator` of OpenAPI, which is another thing in AsyncAPI, and tuples in its way."""

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        return {name: value for name, value in super().tagged_union_schema(schema).items() if name != "discriminator"}

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        made = super().tuple_schema(schema)
        if "prefixItems" in made:
            rest = {"additionalItems": made.pop("items")} if "items" in made else {}
            made |= {"items": made.pop("prefixItems"), **rest}
        return made


def _kinds(payload_type: Any, mode: JsonSchemaMode) -> Iterator[tuple[str, _Kind]]:
    if payload_type is not None and payload_type is not Any:
        for one in alternatives(payload_type):
            yield re.sub(r"\W+", "_", name_of(one)).strip("_"), _Kind(one, mode)


def _adapter(topic_id: str, payload_type: Any) -> TypeAdapter[Any]:
    adapter = TypeAdapter(payload_type)
    try:
        adapter.json_schema()
    except PydanticUserError as error:
        raise TypeError(f"topic {topic_id}: {name_of(payload_type)} has no JSON Schema: {error}") from None
    return adapter


def _operation(action: str, channel: str, kinds: list[str]) -> Document:
    reference = f"#/channels/{_escaped(channel)}"
    messages = [{"$ref": f"{reference}/messages/{_escaped(kind)}"} for kind in kinds]
    return {"action": action, "channel": {"$ref": reference}, **({"messages": messages} if messages else {})}


def _escaped(name: str) -> str:
    """As a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _server(url: str) -> Document:
    """Without a name and a password, which the URL may have."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError(f"{url} is not the URL of a server, such as https://bus.example")
    host = parts.netloc.rpartition("@")[2]
    return {"host": host, "protocol": parts.scheme, **({"pathname": parts.path} if parts.path.strip("/") else {})}
