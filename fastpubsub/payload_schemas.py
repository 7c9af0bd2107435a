"""The JSON Schema of a topic, draft 2020-12: compiled, and what does not fit it.

Whoever writes a schema must not be able to stop the server. Nothing is fetched, regular expressions run in linear time,
and the work for a payload is bounded: by the number of its subschemas, with references followed, times its bytes.
"""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from fastpubsub.exceptions import InvalidRequest

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MAX_SUBSCHEMAS = 20_000
_MAX_REFERENCES_DEEP = 200
# Subschemas times bytes: what is refused, what is worth a thread, and up to where the errors of all alternatives of
# `anyOf` and `oneOf`, which the library collects before it says anything, stay few.
_MAX_WORK = 2_000_000_000
_QUICK_WORK = 2_000_000
_EXPLAINABLE_WORK = 200_000
_REGEX_BYTES = 1 << 20
_MAX_TEXT = 200

_ANCHORS = ("$anchor", "$dynamicAnchor")
_REFERENCES = ("$ref", "$dynamicRef")
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES, dfa_size_limit=_REGEX_BYTES)


class PayloadSchema:
    def __init__(self, text: bytes) -> None:
        """Raises InvalidRequest for what is no schema, or none that is taken."""
        schema = json.loads(text, parse_float=Decimal)
        shape = _Shape(schema)
        self._size = max(shape.size, 1)
        self._explains_any_size = not shape.alternatives
        self._explains = not (shape.alternatives and shape.recursive)
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                text.decode(),
                offline=True,
                mask="the value",
                pattern_options=_PATTERNS,
                validate_formats=True,
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise InvalidRequest(f"the schema is not valid: {_reason(error)}") from None

    def is_quick(self, payloads: Sequence[bytes]) -> bool:
        return self._size * sum(map(len, payloads)) <= _QUICK_WORK

    def check(self, payloads: Sequence[bytes]) -> None:
        """Raises InvalidRequest for the first one that does not fit; what it says shows none of its values."""
        for index, payload in enumerate(payloads):
            work = self._size * len(payload)
            if work > _MAX_WORK:
                raise InvalidRequest(f"message {index} is too large to be checked by the schema of its topic")
            instance = json.loads(payload, parse_float=Decimal)
            if not self._validator.is_valid(instance):
                raise self._refusal(index, instance, work)

    def _refusal(self, index: int, instance: Any, work: int) -> InvalidRequest:
        path: list[str | int] = []
        reason = "the value fits none of its alternatives"
        if self._explains and (self._explains_any_size or work <= _EXPLAINABLE_WORK):
            try:
                self._validator.validate(instance)
            except jsonschema_rs.ValidationError as error:
                path, reason = list(error.instance_path), error.message[:_MAX_TEXT]
        pointer = _pointer(path)
        detail = f'message {index} does not fit the schema of its topic at "{pointer}": {reason}'
        return InvalidRequest(
            detail, [{"type": "json_schema", "loc": ["body", index], "pointer": pointer, "msg": reason}]
        )


class _Shape:
    """How much a schema can ask for. What is said here about references keeps that computable."""

    def __init__(self, schema: Any) -> None:
        self.size = 0
        self.recursive = False
        self.alternatives = False
        self._schema = schema
        self._anchors: dict[str, Any] = {}
        for node in _objects(schema):
            self._look_at(node)
        if isinstance(schema, dict):
            own = {name: value for name, value in schema.items() if name != "$defs"}
            self._follow_all(own, (id(schema),))

    def _look_at(self, node: dict[str, Any]) -> None:
        self.alternatives |= "anyOf" in node or "oneOf" in node
        self._anchors |= {node[name]: node for name in _ANCHORS if isinstance(node.get(name), str)}
        dialect = node.get("$schema", DIALECT)
        if isinstance(dialect, str) and dialect.rstrip("#") != DIALECT:
            raise InvalidRequest(f"the schema is not valid: its `$schema` is not {DIALECT}")
        if isinstance(node.get("$id"), str) and node is not self._schema:
            raise InvalidRequest("the schema is not valid: only the whole of it can have an `$id`")

    def _follow_all(self, node: Any, path: tuple[int, ...]) -> None:
        """Counts, with every reference but those that lead back: recursion goes as deep as the payload does."""
        left = [(node, path)]
        while left:
            node, path = left.pop()
            self.size += isinstance(node, dict)
            if self.size > _MAX_SUBSCHEMAS or len(path) > _MAX_REFERENCES_DEEP:
                raise InvalidRequest(f"the schema has more than {_MAX_SUBSCHEMAS} parts, with its references followed")
            for name, child in node.items() if isinstance(node, dict) else enumerate(node):
                if name in _REFERENCES and isinstance(child, str):
                    target = self._target(child)
                    self.recursive |= id(target) in path
                    if id(target) not in path:
                        left.append((target, (*path, id(target))))
                elif isinstance(child, dict | list):
                    left.append((child, path))

    def _target(self, reference: str) -> Any:
        """Nothing, where there is none: the library says so."""
        if not reference.startswith("#"):
            raise InvalidRequest("the schema is not valid: references lead to its own parts only, as `#/$defs/name`")
        fragment = unquote(reference[1:])
        if not fragment.startswith("/"):
            return self._anchors.get(fragment, {}) if fragment else self._schema
        node = self._schema
        for part in fragment[1:].split("/"):
            node = _child(node, part.replace("~1", "/").replace("~0", "~"))
        return node


def _child(node: Any, name: str) -> Any:
    if isinstance(node, dict):
        return node.get(name, {})
    if isinstance(node, list) and name.isdecimal() and len(name) < 10 and int(name) < len(node):
        return node[int(name)]
    return {}


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _objects(child)


def _pointer(path: Sequence[str | int]) -> str:
    """RFC 6901."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "".join(f"/{part}" for part in parts)[:_MAX_TEXT]


def _reason(error: Exception) -> str:
    path = getattr(error, "instance_path", [])
    text = str(getattr(error, "message", error)).partition("\n")[0][:_MAX_TEXT]
    return f'at "{_pointer(path)}": {text}' if path else text
