"""JSON Schemas: what is taken as one, what is said of a payload that does not fit, and how much work it may be."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpubsub.exceptions import InvalidRequest
from fastpubsub.payload_schemas import PayloadSchema
from fastpubsub.schema_shapes import DIALECT

ORDER = {
    "$schema": DIALECT,
    "$id": "https://example.com/order",
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "integer"},
        "a~/b": {"enum": ["x"]},
        "items": {"items": {"$ref": "#/$defs/item"}},
        "address": {"$ref": "#address"},
    },
    "$defs": {
        "item": {"properties": {"sku": {"type": "string", "pattern": "^[A-Z]+$"}, "price": {"multipleOf": 0.01}}},
        "address": {"$anchor": "address", "required": ["city"]},
    },
}
SECRET = "topsecret"


def compiled(schema: object) -> PayloadSchema:
    return PayloadSchema(json.dumps(schema).encode())


def refusal(schema: object, *payloads: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        compiled(schema).check([payload.encode() for payload in payloads])
    return raised.value


GOOD = [
    '{"id": 1}',
    '{"id": 1.0, "a~/b": "x", "more": null}',
    '{"id": 123456789012345678901234567890}',
    '{"id": 1e400, "items": []}',
    '{"id": 1, "items": [{"sku": "AB", "price": 19.99}, {"price": 0.07}, {}], "address": {"city": ""}}',
]


def test_what_fits() -> None:
    compiled(ORDER).check([payload.encode() for payload in GOOD])


BAD = {
    '{"x": 1}': ("", '"id" is a required property'),
    '{"id": "topsecret"}': ("/id", 'the value is not of type "integer"'),
    '{"id": 1.5}': ("/id", 'the value is not of type "integer"'),
    '{"id": 1, "a~/b": "topsecret"}': ("/a~0~1b", 'the value is not one of "x"'),
    '{"id": 1, "items": [{}, {"sku": "topsecret"}]}': ("/items/1/sku", 'the value does not match "^[A-Z]+$"'),
    '{"id": 1, "items": [{"price": 0.001}]}': ("/items/0/price", "the value is not a multiple of 0.01"),
    '{"id": 1, "address": {"street": "topsecret"}}': ("/address", '"city" is a required property'),
}


@pytest.mark.parametrize(("payload", "expected"), BAD.items())
def test_what_does_not_fit(payload: str, expected: tuple[str, str]) -> None:
    error = refusal(ORDER, *GOOD, payload, '{"id": null}')
    pointer, reason = expected
    assert error.detail == f'message {len(GOOD)} does not match the schema of its topic at "{pointer}": {reason}'
    assert error.errors == [
        {"type": "json_schema", "loc": ["body", len(GOOD)], "pointer": pointer, "msg": reason},
    ]
    assert SECRET not in error.detail


def test_true_and_false_are_schemas() -> None:
    compiled(True).check([b"{}"])
    assert "message 0" in refusal(False, "{}").detail


ALTERNATIVES = {"properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}


def test_alternatives() -> None:
    assert refusal(ALTERNATIVES, '{"a": "topsecret"}').errors[0]["pointer"] == "/a"


@pytest.mark.parametrize("keyword", ["const", "enum", "not", "contains", "uniqueItems", "maximum", "format"])
def test_no_value_is_shown(keyword: str) -> None:
    schemas: dict[str, Any] = {
        "const": "x",
        "enum": ["x"],
        "not": {"const": SECRET},
        "contains": {"const": 1},
        "uniqueItems": True,
        "maximum": 1,
        "format": "date",
    }
    value = {"contains": [SECRET], "uniqueItems": [SECRET, SECRET], "maximum": 8675309}.get(keyword, SECRET)
    error = refusal({"properties": {"a": {keyword: schemas[keyword]}}}, json.dumps({"a": value}))
    for text in (error.detail, json.dumps(error.errors)):
        assert "8675309" not in text
        assert SECRET not in text or keyword == "not"


INVALID = {
    "type": {"properties": {"a": {"type": "strin"}}},
    "number": {"minLength": -1},
    "regular expression": {"pattern": "("},
    "look-ahead, which takes more than linear time": {"pattern": "(?=a)b"},
    "huge regular expression": {"pattern": "((a{1,1000}){1,1000}){1,1000}"},
    "missing definition": {"$ref": "#/$defs/none"},
    "remote": {"$ref": "https://example.com/schema"},
    "remote metaschema": {"properties": {"a": {"$ref": DIALECT}}},
    "file": {"$ref": "file:///etc/passwd"},
    "relative": {"$id": "http://127.0.0.1:9/a", "$ref": "b"},
    "id inside": {"properties": {"a": {"$id": "http://127.0.0.1:9/a"}}},
    "dialect": {"$schema": "http://json-schema.org/draft-07/schema#"},
    "dialect inside": {"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}},
    "dialect of another type": {"$schema": 1},
    "bad id": {"$id": "::::"},
    "bad anchor": {"$anchor": 1},
    "number instead of a schema": {"properties": {"a": 1}},
}


@pytest.mark.parametrize("schema", INVALID.values(), ids=INVALID)
def test_what_is_no_schema(schema: object) -> None:
    with pytest.raises(InvalidRequest, match="the schema is not valid"):
        compiled(schema)


def test_the_place_in_a_schema_is_named() -> None:
    with pytest.raises(InvalidRequest, match='"/properties/a/minLength"'):
        compiled({"properties": {"a": {"minLength": -1}}})


BOOLEANS = {
    "definition": {"$ref": "#/$defs/any", "$defs": {"any": True}},
    "dynamic": {"$dynamicRef": "#/$defs/any", "$defs": {"any": True}},
    "property": {"properties": {"a": {"$ref": "#/properties/b"}, "b": True}},
    "element": {"allOf": [True], "$ref": "#/allOf/0"},
    "unknown": {"$ref": "#/mine", "mine": True},
}


@pytest.mark.parametrize("schema", BOOLEANS.values(), ids=BOOLEANS)
def test_a_reference_to_true_and_to_false(schema: dict[str, Any]) -> None:
    compiled(schema).check([b'{"a": 1}'])
    forbidding = json.loads(json.dumps(schema).replace("true", "false"))
    assert refusal(forbidding, '{"a": 1}').detail.startswith("message 0 does not match")


@pytest.mark.parametrize("target", [0, 1.5, None, "x", [], [{}]])
@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_a_reference_to_what_is_no_schema(keyword: str, target: object) -> None:
    for schema in ({keyword: "#/mine", "mine": target}, {keyword: "#/const", "const": target}):
        with pytest.raises(InvalidRequest, match="the schema is not valid"):
            compiled(schema)


DATA = {"$ref": "http://127.0.0.1:9/", "$id": "http://127.0.0.1:9/", "$schema": "http://127.0.0.1:9/", "$anchor": "b"}


@pytest.mark.parametrize("data", [DATA, {"$ref": 1, "$id": [], "$schema": None, "$anchor": {}}])
def test_keywords_in_data_are_data(data: dict[str, Any]) -> None:
    annotations = {"default": data, "examples": [data], "mine": data, "$comment": "x"}
    schema = compiled({**annotations, "properties": {"a": {"const": data}, "b": {"enum": [data]}, "$ref": True}})
    schema.check([json.dumps({"a": data, "b": data, "$ref": 1}).encode()])
    assert refusal({"properties": {"a": {"const": data}}}, '{"a": {}}').errors[0]["pointer"] == "/a"


def test_keywords_in_data_that_a_reference_leads_to_are_keywords() -> None:
    for name in ("$ref", "$id", "$schema"):
        with pytest.raises(InvalidRequest, match="the schema is not valid"):
            compiled({"$ref": "#/const", "const": {name: DATA[name]}})
    assert refusal({"$ref": "#/const", "const": {"required": ["a"]}}, "{}").errors[0]["msg"]
    levels = json.loads(json.dumps(doubling(40, True)["$defs"]).replace("#/$defs/", "#/const/"))
    with pytest.raises(InvalidRequest, match="parts"):
        compiled({"$ref": "#/const/d39", "const": levels})


def doubling(levels: int, last: object) -> dict[str, Any]:
    """Each level is looked at twice by the one above."""
    levels_by_name: dict[str, object] = {"d0": last}
    for level in range(1, levels):
        levels_by_name[f"d{level}"] = {"anyOf": [{"$ref": f"#/$defs/d{level - 1}"}] * 2}
    return {"$defs": levels_by_name, "properties": {"a": {"$ref": f"#/$defs/d{levels - 1}"}}}


def test_references_that_multiply_are_refused() -> None:
    compiled(doubling(8, {"type": "string"})).check([b'{"a": "x"}'])
    with pytest.raises(InvalidRequest, match="parts"):
        compiled(doubling(40, {"type": "string"}))
    with pytest.raises(InvalidRequest, match="parts"):
        compiled({"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(500)}, "$ref": "#/$defs/d0"})


def nested(depth: int, inside: object) -> dict[str, Any]:
    for _ in range(depth):
        inside = {"a": inside}
    return {"a": inside}


RECURSIVE = {"properties": {"a": {"$ref": "#/$defs/node"}}, "type": "object"}
KINDS = {
    keyword: {keyword: [{**RECURSIVE, "minProperties": 1}, {**RECURSIVE, "minProperties": 0}]}
    for keyword in ("anyOf", "oneOf", "allOf")
} | {"not": {"not": RECURSIVE, "anyOf": [RECURSIVE, {"not": RECURSIVE}]}, "plain": RECURSIVE}


@pytest.mark.parametrize("kind", KINDS)
def test_recursion_with_alternatives_does_not_explode(kind: str) -> None:
    """Every level doubles what a simple-minded check would do; 60 of them would take for ever."""
    schema = compiled({"$defs": {"node": KINDS[kind]}, "$ref": "#/$defs/node"})
    started = time.process_time()
    insides: list[object] = [1, {}, "x", None]
    for inside in insides:
        try:
            schema.check([json.dumps(nested(60, inside)).encode()])
        except InvalidRequest as error:
            assert "message 0" in error.detail  # noqa: PT017 - either answer is right
    assert time.process_time() - started < 10


def test_a_pointer_into_a_recursive_schema() -> None:
    error = refusal({"$defs": {"node": RECURSIVE}, "$ref": "#/$defs/node"}, json.dumps(nested(2, "topsecret")))
    assert error.errors[0]["pointer"] == "/a/a/a"


def test_many_wrong_values_are_not_all_collected() -> None:
    many = json.dumps({"a": list(range(300_000))})
    started = time.process_time()
    assert refusal({"properties": {"a": {"items": {"type": "string"}}}}, many).errors[0]["pointer"] == "/a/0"
    alternatives = [{"items": {"type": "string", "minLength": length}} for length in range(20)]
    assert refusal({"properties": {"a": {"anyOf": alternatives}}}, many).errors[0]["pointer"] == ""
    assert time.process_time() - started < 10


def test_regular_expressions_take_linear_time() -> None:
    schema = compiled({"properties": {"a": {"pattern": "^(a+)+$"}}})
    started = time.process_time()
    with pytest.raises(InvalidRequest):
        schema.check([json.dumps({"a": "a" * 1_000_000 + "!"}).encode()])
    assert time.process_time() - started < 10


def test_large_work_is_for_a_thread_and_too_large_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = compiled({"properties": {f"p{n}": {"type": "string"} for n in range(1000)}})
    assert schema.is_quick([b"{}"] * 10)
    payload = json.dumps({"p0": "x" * 10_000}).encode()
    assert not schema.is_quick([payload])
    schema.check([payload])
    monkeypatch.setattr("fastpubsub.payload_schemas._MAX_WORK", 1_000_000)
    with pytest.raises(InvalidRequest, match="message 1 is too large"):
        schema.check([b"{}", payload])


SLOW_NUMBERS = {
    "fractions among the values of an enum": ([n + 0.25 for n in range(5000)], "enum", "0.5"),
    "whole numbers among the values of an enum": (["x", *range(5000)], "enum", "0.5"),
    "a limit with a far exponent": (1e-300, "multipleOf", "1.5"),
    "numbers with far exponents": (0.01, "multipleOf", "1e999"),
    "long numbers": (0.5, "minimum", "1." + "7" * 900),
}


@pytest.mark.parametrize(("value", "keyword", "number"), SLOW_NUMBERS.values(), ids=SLOW_NUMBERS)
def test_exact_arithmetic_is_work(value: object, keyword: str, number: str) -> None:
    """Each comparison takes up to a millisecond."""
    schema = compiled({"properties": {"a": {"items": {keyword: value}}}})
    assert schema.is_quick([b"{}"])
    assert not schema.is_quick([b'{"a": [%b]}' % b",".join([number.encode()] * 30)])
    with pytest.raises(InvalidRequest, match="message 0 is too large"):
        schema.check([b'{"a": [%b]}' % b",".join([number.encode()] * 30_000)])


def test_what_looks_like_a_far_number_in_a_text_is_none() -> None:
    schema = compiled({"properties": {"a": {"multipleOf": 0.01}}})
    assert schema.is_quick([json.dumps({"id": "1e999" * 100, "a": 1}).encode()] * 10)


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4))
references = st.sampled_from(["#", "#/", "#/a", "#/$defs/a", "#x", "#%", "#/a/0", "x", "", "#/~2", "#/properties/a"])
keywords = st.sampled_from(
    [
        *("type", "properties", "items", "anyOf", "oneOf", "allOf", "not", "if", "then", "else", "$ref", "$dynamicRef"),
        *("$defs", "$id", "$anchor", "$dynamicAnchor", "$schema", "enum", "const", "required", "pattern", "format"),
        *("minimum", "multipleOf", "maxLength", "uniqueItems", "contains", "prefixItems", "patternProperties", "a"),
        *("unevaluatedProperties", "dependentSchemas", "propertyNames", "minContains", "additionalProperties"),
    ]
)
values = st.recursive(
    st.one_of(scalars, references),
    lambda children: st.one_of(st.lists(children, max_size=3), st.dictionaries(keywords, children, max_size=3)),
    max_leaves=10,
)


@settings(max_examples=500)
@given(schema=st.dictionaries(keywords, values, max_size=4), payload=st.dictionaries(st.text(max_size=1), values))
def test_nothing_else_is_ever_raised(schema: Any, payload: Any) -> None:
    try:
        text = json.dumps(schema, allow_nan=False)
        body = json.dumps(payload, allow_nan=False)
        text.encode(), body.encode()
    except ValueError:
        return
    try:
        PayloadSchema(text.encode()).check([body.encode()])
    except InvalidRequest as error:
        assert len(error.detail) < 2000  # noqa: PT017 - either answer is right


@pytest.mark.parametrize("name", ["pattern", "patternProperties"])
def test_regular_expressions_are_counted_before_they_are_compiled(name: str) -> None:
    """3,000 of the largest fit a schema, and compiling them took 19 seconds."""

    def schema(count: int) -> bytes:
        patterns = [f".{{10}}{number}" for number in range(count)]
        if name == "pattern":
            return json.dumps({"properties": {one: {name: one} for one in patterns}}).encode()
        return json.dumps({name: dict.fromkeys(patterns, True)}).encode()

    PayloadSchema(schema(100))
    with pytest.raises(InvalidRequest, match="more than 100 regular expressions"):
        PayloadSchema(schema(101))
