"""Checks a JSON Schema before it is compiled: how much work it may cause, and that it refers only to itself."""

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from fastpubsub.exceptions import InvalidRequest

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SUBSCHEMAS = 20_000
MAX_PATTERNS = 100
"""Compiling one of the largest holds the interpreter for 7 ms."""

_MAX_REFERENCES_DEEP = 200
_CONTAINER_PARTS = 10
"""A list or an object in `enum` or `const` takes as long to compare as so many subschemas."""

_FAR_DIGITS = 100
"""Arithmetic with more digits, or with an exponent beyond, takes a thousand times as long."""

_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COMPARED = ("const", "enum", "dependentRequired")

_ANCHORS = ("$anchor", "$dynamicAnchor")
_REFERENCES = ("$ref", "$dynamicRef")
_DEFINITIONS = ("$defs", "definitions")
# Where the draft has subschemas. All else is data: `$ref` and `$id` are plain words in it.
_ONE = (
    *("additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = (*_DEFINITIONS, "dependencies", "dependentSchemas", "patternProperties", "properties")

Object = dict[str, Any]


class Shape:
    """`size`: the subschemas that can be applied, with references followed, and the values in them. `numbers`: with how
    many a number of a payload is compared in exact arithmetic. `fractions` and `far_numbers`: those that make it slow.
    """

    def __init__(self, schema: Any) -> None:
        """Raises InvalidRequest for what would make that impossible to know."""
        self.size = 0
        self.numbers = 0
        self.fractions = 0
        self.far_numbers = 0
        self.recursive = False
        self.alternatives = False
        self._schema = schema
        self._patterns = 0
        self._anchors: defaultdict[str, list[Object]] = defaultdict(list)
        for node in _all_subschemas(schema):
            self._look_at(node)
            self._count_patterns(node)
            for name in _ANCHORS:
                if isinstance(node.get(name), str):
                    self._anchors[node[name]].append(node)
        self._follow_all()

    def _look_at(self, node: Object) -> None:
        self.alternatives |= "anyOf" in node or "oneOf" in node
        dialect = node.get("$schema", DIALECT)
        if isinstance(dialect, str) and dialect.rstrip("#") != DIALECT:
            raise InvalidRequest(f"the schema is not valid: its `$schema` is not {DIALECT}")
        if isinstance(node.get("$id"), str) and node is not self._schema:
            raise InvalidRequest("the schema is not valid: only the whole schema can have an `$id`")

    def _count_patterns(self, node: Object) -> None:
        named = node.get("patternProperties")
        self._patterns += ("pattern" in node) + (len(named) if isinstance(named, dict) else 0)
        if self._patterns > MAX_PATTERNS:
            raise InvalidRequest(f"the schema has more than {MAX_PATTERNS} regular expressions")

    def _follow_all(self) -> None:
        """Counts, with every reference but those that lead back: recursion goes as deep as the payload does."""
        left: list[tuple[Any, tuple[int, ...]]] = [(self._schema, (id(self._schema),))]
        while left:
            node, path = left.pop()
            self.size += 1
            if isinstance(node, dict):
                self._look_at(node)
                self._weigh(node)
                left += ((child, path) for child in _subschemas(node, besides=_DEFINITIONS))
                for target in self._targets(node):
                    self.recursive |= id(target) in path
                    if id(target) not in path:
                        left.append((target, (*path, id(target))))
            if self.size > MAX_SUBSCHEMAS or len(path) > _MAX_REFERENCES_DEEP:
                raise InvalidRequest(f"the schema has more than {MAX_SUBSCHEMAS} parts, with its references followed")

    def _weigh(self, node: Object) -> None:
        """Counts comparisons as work, too."""
        for name in _COMPARED:
            values = list(_all_values(node[name])) if name in node else []
            self.size += sum(_CONTAINER_PARTS if isinstance(one, dict | list) else 1 for one in values)
            self._weigh_numbers(values, all_slow=len(values) > 1)
        self._weigh_numbers([node.get(name) for name in _LIMITS])
        self.numbers += "integer" in str(node.get("type"))

    def _weigh_numbers(self, values: list[Any], all_slow: bool = False) -> None:
        numbers = [one for one in values if isinstance(one, int | Decimal) and not isinstance(one, bool)]
        self.numbers += len(numbers)
        self.fractions += sum(all_slow or isinstance(one, Decimal) for one in numbers)
        self.far_numbers += sum(_is_far(one) for one in numbers)

    def _targets(self, node: Object) -> Iterator[Any]:
        """Returns None without a valid schema: the library says what is wrong with it."""
        for reference in (node.get(name) for name in _REFERENCES):
            if isinstance(reference, str):
                if not reference.startswith("#"):
                    raise InvalidRequest(
                        "the schema is not valid: references must point to its own parts, such as `#/$defs/name`"
                    )
                fragment = unquote(reference[1:])
                yield from [self._part(fragment)] if fragment[:1] in ("", "/") else self._anchors.get(fragment, ())

    def _part(self, pointer: str) -> Any:
        node = self._schema
        for part in pointer.split("/")[1:]:
            node = _child(node, part.replace("~1", "/").replace("~0", "~"))
        return node


def _child(node: Any, name: str) -> Any:
    if isinstance(node, dict):
        return node.get(name)
    if isinstance(node, list) and name.isdecimal() and len(name) < 10 and int(name) < len(node):
        return node[int(name)]
    return None


def _subschemas(node: Object, besides: tuple[str, ...] = ()) -> Iterator[Any]:
    for name, value in node.items():
        if name in besides:
            continue
        if name in _ONE:
            yield value
        elif name in _LISTS and isinstance(value, list):
            yield from value
        elif name in _NAMED and isinstance(value, dict):
            yield from value.values()


def _all_subschemas(node: Any) -> Iterator[Object]:
    if isinstance(node, dict):
        yield node
        for child in _subschemas(node):
            yield from _all_subschemas(child)


def _all_values(value: Any) -> Iterator[Any]:
    yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _all_values(child)


def _is_far(number: int | Decimal) -> bool:
    _, digits, exponent = Decimal(number).as_tuple()
    return len(digits) > _FAR_DIGITS or abs(int(exponent)) > _FAR_DIGITS
