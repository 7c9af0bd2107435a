"""What is let through is what PostgreSQL can store, cast and filter; and it comes back to the byte."""

import json
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpubsub.database.arrays import Array, ArrayDumper
from fastpubsub.exceptions import FastpubsubError, InvalidRequest, TooLarge
from fastpubsub.json_text import check_json, member
from fastpubsub.payloads import Batch, parse_batch, parse_ids
from tests.harness import libpq

MEBIBYTE = 1 << 20


def parse(body: bytes, max_messages: int = 1000, max_depth: int = 64) -> Batch:
    return parse_batch(body, max_messages=max_messages, max_depth=max_depth)


def enveloped(payload: bytes) -> bytes:
    return b'{"messages":[{"payload":%b}]}' % payload


def listed(payload: bytes) -> bytes:
    return b"[%b]" % payload


WRAPPINGS = [listed, enveloped]


@pytest.fixture(scope="module")
def postgres(shared_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(libpq(shared_database_url), autocommit=True) as connection:
        connection.adapters.register_dumper(Array, ArrayDumper)
        yield connection


def round_trip(postgres: psycopg.Connection, payloads: list[bytes]) -> list[bytes]:
    """Through a column of json and the cast that filters use."""
    query = "select p::text, (p::jsonb)::text from unnest(%s) as p"
    return [text.encode() for text, _ in postgres.execute(query, [Array("json", payloads)], binary=True)]


def is_castable(postgres: psycopg.Connection, payload: bytes) -> bool:
    try:
        round_trip(postgres, [payload])
    except psycopg.DataError:
        return False
    return True


# JSON as it should not be: pieces that PostgreSQL, Python and msgspec may see differently

ESCAPES = [
    r"\n",
    r"\"",
    r"\\",
    r"\/",
    r"\u0041",
    r"\u0000",
    r"\\u0000",
    r"\ud83d\ude00",
    r"\ud800",
    r"\udc00",
    r"\x",
    r"\u12",
]
digits = st.text("0123456789", min_size=1, max_size=5)
long_digits = st.integers(995, 1005).map("7".__mul__)
exponents = st.builds(
    "{}{}{}{}".format,
    st.sampled_from("eE"),
    st.sampled_from(["", "+", "-"]),
    st.sampled_from(["", "0", "000"]),
    st.one_of(digits, st.integers(990, 1010).map(str), st.just("200000")),
)
numbers = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-", "+"]),
    st.one_of(digits, long_digits),
    st.one_of(st.just(""), digits.map(".{}".format), long_digits.map(".{}".format), st.just(".")),
    st.one_of(st.just(""), exponents),
)
strings = st.lists(
    st.one_of(st.sampled_from(ESCAPES), st.text(max_size=3), numbers, st.sampled_from(["{", "]", "\x01", "é", "\x7f"])),
    max_size=4,
).map(lambda parts: '"{}"'.format("".join(parts)))
scalars = st.one_of(
    strings, numbers, st.sampled_from(["true", "false", "null", "NaN", "Infinity", "-Infinity", "nul", ""])
)
spaces = st.sampled_from(["", "", " ", "\n\t", "\r", "\x0b", "\xa0"])


def containers(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.builds("{}{}:{}{}".format, strings, spaces, spaces, children)
    return st.one_of(
        st.lists(children, max_size=3).map(lambda parts: "[{}]".format(",".join(parts))),
        st.lists(pairs, max_size=3).map(lambda parts: "{{{}}}".format(",".join(parts))),
    )


objects = st.lists(st.builds("{}:{}".format, strings, st.recursive(scalars, containers, max_leaves=6)), max_size=4).map(
    lambda parts: "{{{}}}".format(",".join(parts))
)
deep = st.integers(60, 70).flatmap(
    lambda n: st.sampled_from(['{"a":' * n + "1" + "}" * n, '{"a":' + "[" * n + "]" * n + "}"])
)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    text = draw(st.one_of(objects, deep, st.builds("{}{}{}".format, spaces, objects, spaces)))
    body = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(body)))
        body = body[:place] + draw(st.binary(max_size=2)) + body[place + draw(st.integers(0, 1)) :]
    return body


fuzz = settings(max_examples=200)


@fuzz
@given(payload=payloads())
@pytest.mark.parametrize("wrap", WRAPPINGS)
def test_postgresql_keeps_what_is_accepted_and_refuses_the_rest(
    postgres: psycopg.Connection, wrap: Callable[[bytes], bytes], payload: bytes
) -> None:
    try:
        batch = parse(wrap(payload))
    except InvalidRequest:
        assert not is_castable(postgres, payload) or is_limited(payload)
        return
    assert round_trip(postgres, batch.payloads) == batch.payloads
    if wrap is listed:
        assert b"".join(batch.payloads) in payload or len(batch.payloads) != 1


def is_limited(payload: bytes) -> bool:
    """Whether a limit of ours, or the rule that a payload is an object, refuses it; by a parser that is not ours."""
    beyond: list[str] = []

    def look(number: str) -> str:
        mantissa, _, exponent = number.lower().partition("e")
        if len(re.sub(r"\D", "", mantissa)) > 1000 or abs(int(exponent or 0)) > 1000:
            beyond.append(number)
        return number

    value = json.loads(payload, parse_int=look, parse_float=look)
    return not isinstance(value, dict) or bool(beyond) or depth_of(value) > 64


def depth_of(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(depth_of, children), default=0)


# each rule by itself, in both forms of the body

REFUSED = {
    "NUL escape in a value": rb'{"a":"x\u0000y"}',
    "NUL escape in a key": rb'{"\u0000":1}',
    "NUL escape behind an escaped backslash": rb'{"a":"\\\u0000"}',
    "raw NUL": b'{"a":"\x00"}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":-Infinity}',
    "high surrogate in a value": rb'{"a":"\ud800"}',
    "high surrogate in a key": rb'{"\ud800":1}',
    "low surrogate first": rb'{"a":"\udc00\ud800"}',
    "two high surrogates": rb'{"a":"\ud83d\ud83d"}',
    "encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "byte that is not UTF-8": b'{"a":"\xff"}',
    "overlong encoding": b'{"a":"\xc0\xaf"}',
    "control character": b'{"a":"\n"}',
    "unknown escape": rb'{"a":"\x41"}',
    "leading zero": b'{"a":01}',
    "plus sign": b'{"a":+1}',
    "point without digits": b'{"a":1.}',
    "hexadecimal": b'{"a":0x10}',
    "single quotes": b"{'a':1}",
    "trailing comma": b'{"a":1,}',
    "comment": b'{"a":1/**/}',
    "key without value": b'{"a"}',
    "unterminated": b'{"a":"',
    "1,001 digits": b'{"a":%b}' % (b"1" * 1001),
    "1,001 digits around a point": b'{"a":%b.%b}' % (b"1" * 500, b"1" * 501),
    "1,001 negative digits": b'{"a":-%b}' % (b"1" * 1001),
    "1,001 digits and an exponent": b'{"a":%be1}' % (b"1" * 1001),
    "exponent 1001": b'{"a":1e1001}',
    "exponent -1001": b'{"a":1E-1001}',
    "exponent +1001 with zeros": b'{"a":1.5e+0001001}',
    "exponent 2000": b'{"a":[[1e2000]]}',
    "exponent 200000": b'{"a":1e200000}',
    "exponent of 5,000 digits": b'{"a":1e%b}' % (b"9" * 5000),
    "exponent among strings": b'{"1":"2","a":3e9999,"b":""}',
    "65 levels": b'{"a":' * 65 + b"1" + b"}" * 65,
    "65 levels of lists": b'{"a":%b%b}' % (b"[" * 64, b"]" * 64),
    "5,000 levels": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "100,000 levels": b'{"a":%b%b}' % (b"[" * 100_000, b"]" * 100_000),
    "100,000 levels without an end": b'{"a":' * 100_000,
    "list": b"[1]",
    "number": b"1",
    "string": b'"{}"',
    "null": b"null",
}

ACCEPTED = {
    "escaped backslash before u0000": rb'{"a":"\\u0000"}',
    "surrogate pair": rb'{"a":"\ud83d\ude00"}',
    "escapes": rb'{"a":"\"\\\/\b\f\n\r\t\u00e9"}',
    "DEL": b'{"a":"\x7f"}',
    "noncharacter": '{"a":"\uffff\U0010ffff"}'.encode(),
    "1e308": b'{"a":1e308}',
    "beyond 64 bits": b'{"a":18446744073709551621,"b":-9223372036854775809}',
    "not ASCII": '{"é":"漢字"}'.encode(),
    "negative zero": b'{"a":-0,"b":-0.0,"c":0e0}',
    "more digits than a float": b'{"a":0.1000000000000000055511151231257827021181583404541015625}',
    "1,000 digits": b'{"a":%b}' % (b"9" * 1000),
    "1,000 digits around a point": b'{"a":-%b.%b}' % (b"9" * 500, b"9" * 500),
    "1,000 digits times ten to the 1,000th": b'{"a":%be1000}' % (b"9" * 1000),
    "exponent 1000": b'{"a":1e1000,"b":1E+1000,"c":1e-1000}',
    "exponent with zeros": b'{"a":1e0001000,"b":1e%b1}' % (b"0" * 900),
    "many numbers, none too long": b'{"a":[%b0]}' % (b"%b," % (b"1" * 600) * 5),
    "digits in a string": b'{"a":"%b"}' % (b"1" * 2000),
    "digits in a key": b'{"%b":1}' % (b"1" * 2000),
    "exponent in a string": b'{"a":"1e200000"}',
    "exponent in a string behind a quote": rb'{"a":"\"1e200000","b":"\\","c":"1e9999"}',
    "brackets in a string": b'{"a":"%b"}' % (b"[" * 1000),
    "brackets in a string behind a quote": rb'{"a":"\"%b","\\":"%b"}' % (b"{" * 1000, b"[" * 1000),
    "duplicate keys": b'{"a":1,"a":2,"a":1}',
    "64 levels": b'{"a":' * 64 + b"1" + b"}" * 64,
    "64 levels of lists": b'{"a":%b%b}' % (b"[" * 63, b"]" * 63),
    "many levels side by side": b'{"a":[%b1]}' % (b"[[[]]]," * 1000),
    "spaces": b'{ "a" :\t[ 1 ,\r\n{ } ] }',
    "empty": b"{}",
    "empty key": b'{"":""}',
}


@pytest.mark.parametrize("wrap", WRAPPINGS)
@pytest.mark.parametrize("payload", REFUSED.values(), ids=REFUSED)
def test_refused(wrap: Callable[[bytes], bytes], payload: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(wrap(payload))
    assert len(refused.value.detail) < 500


@pytest.mark.parametrize("wrap", WRAPPINGS)
@pytest.mark.parametrize("payload", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_and_verbatim(postgres: psycopg.Connection, wrap: Callable[[bytes], bytes], payload: bytes) -> None:
    batch = parse(wrap(payload))
    assert batch.payloads == [payload]
    assert round_trip(postgres, batch.payloads) == [payload]


@pytest.mark.parametrize(
    "body", [b"", b"null", b"1", b'"x"', b"[{}]x", b"[{}", b"{}", b"[{},]", b"\xef\xbb\xbf[{}]", b"\xa0[{}]"]
)
def test_a_body_that_is_neither_a_list_nor_an_envelope(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(body)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_other_encodings(encoding: str) -> None:
    with pytest.raises(InvalidRequest):
        parse('[{"é":1}]'.encode(encoding))


@pytest.mark.parametrize("body", [b"[]", b" [ ]\n", b'{"messages":[]}'])
def test_nothing(body: bytes) -> None:
    assert parse(body) == Batch([], None, len(body))


def test_the_bad_one_of_many_is_named() -> None:
    for bad in (b"[]", b'{"a":1e1001}', b'{"a":' * 65 + b"1" + b"}" * 65):
        with pytest.raises(InvalidRequest, match="message 2 "):
            parse(b'[{}, {"a": 1e1000}, %b]' % bad)


def test_too_many() -> None:
    assert len(parse(b"[{},{},{}]", max_messages=3).payloads) == 3
    for body in (b"[{},{},{},{}]", b'{"messages":[%b]}' % b",".join([b'{"payload":{}}'] * 4)):
        with pytest.raises(TooLarge, match="than the 3 of one publish"):
            parse(body, max_messages=3)


def test_depth_is_a_setting() -> None:
    two = b'{"a":{}}'
    assert parse(listed(two), max_depth=2).payloads == [two]
    with pytest.raises(InvalidRequest, match="nested deeper than 1 levels"):
        parse(listed(two), max_depth=1)


# attributes


def attributed(attributes: Any) -> bytes:
    return json.dumps({"messages": [{"payload": {}, "attributes": attributes}]}).encode()


def test_attributes() -> None:
    batch = parse(b'{"messages":[{"payload":{}},{"payload":{"a":1.0},"attributes":{"k":"\xc3\xa9","l":""}}]}')
    assert batch.payloads == [b"{}", b'{"a":1.0}']
    assert batch.attributes is not None
    assert [one and json.loads(one) for one in batch.attributes] == [None, {"k": "é", "l": ""}]


@pytest.mark.parametrize("none", [{}, None])
def test_no_attributes(none: object) -> None:
    assert parse(attributed(none)).attributes is None


@pytest.mark.parametrize(
    "attributes",
    [
        {str(n): "" for n in range(100)},
        {"k" * 256: "v" * 1024},
        {"é" * 256: "漢" * 1024},
    ],
)
def test_attributes_at_their_limits(postgres: psycopg.Connection, attributes: dict[str, str]) -> None:
    batch = parse(attributed(attributes))
    assert batch.attributes is not None
    (row,) = postgres.execute("select a::text from unnest(%s) as a", [Array("jsonb", batch.attributes)], binary=True)
    assert json.loads(row[0]) == attributes


@pytest.mark.parametrize(
    "attributes",
    [
        {str(n): "" for n in range(101)},
        {"k" * 257: ""},
        {"": "v"},
        {"k": "v" * 1025},
        {"k": 1},
        {"k": None},
        {"k": {}},
        ["k"],
        "k",
        {"k": "\x00"},
        {"k": "\ud800"},
        {"\ud800": "v"},
    ],
)
def test_attributes_that_are_refused(attributes: object) -> None:
    with pytest.raises(InvalidRequest):
        parse(attributed(attributes))


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"payload":{},"delay":1}]}',
        b'{"messages":[],"x":[1,{"a":2}]}',
        b'{"messages":[{"attributes":{}}]}',
        b'{"messages":[{}]}',
        b'{"messages":{}}',
        b'{"messages":[[]]}',
        b'{"messages":null}',
        b'{"message":[]}',
    ],
)
def test_envelopes_with_unknown_or_missing_members(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(body)


def test_a_refusal_quotes_no_more_than_a_name() -> None:
    for body in (b'{"%b":1}' % (b"k" * MEBIBYTE), b'{"messages":[{"%b":1}]}' % (b"k" * MEBIBYTE)):
        with pytest.raises(InvalidRequest) as refused:
            parse(body)
        assert len(refused.value.detail) < 500


# lists of ids, and bodies that models read


def test_ids() -> None:
    assert parse_ids(b' ["a", "\\u00e9"] ', max_ids=2) == ["a", "é"]
    with pytest.raises(TooLarge, match="than the 2 of one request"):
        parse_ids(b'["a","b","c"]', max_ids=2)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"null", b'"a"', b"[1]", b"[null]", b'[["a"]]', rb'["\u0000"]', rb'["\ud800"]', b'["\xff"]', b'["a"'],
)
def test_lists_that_are_no_ids(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_ids(body, max_ids=10)


@pytest.mark.parametrize(
    "payload", [body for name, body in REFUSED.items() if name not in {"list", "number", "string", "null"}]
)
def test_a_body_for_a_model_is_as_strict(payload: bytes) -> None:
    with pytest.raises(InvalidRequest):
        check_json(payload)


@pytest.mark.parametrize("payload", ACCEPTED.values(), ids=ACCEPTED)
def test_a_body_for_a_model(payload: bytes) -> None:
    check_json(payload)


def test_a_member_keeps_its_text() -> None:
    body = b'{"a": {"n": [1e308, 18446744073709551621]} , "b": null, "a": [1.0]}'
    assert member(body, "a") == b"[1.0]", "the last one, as every reader of JSON here has it"
    assert member(body, "b") == b"null"
    assert member(body, "c") is None


# no body makes the server stand still

SIZE = 2 * MEBIBYTE
HARMLESS = b'[{"a":[%b1]}]' % (b'"abc",' * (SIZE // 6))
HOSTILE = {
    "brackets": b'[{"a":[%b1]}]' % (b"[]," * (SIZE // 3)),
    "brackets 60 deep": b'[{"a":[%b1]}]' % ((b"[" * 60 + b"]" * 60 + b",") * (SIZE // 121)),
    "brackets without an end": b"[" * SIZE,
    "objects without an end": b'[{"a":' + b'{"a":' * (SIZE // 5),
    "numbers": b'[{"b":"e0000","a":[%b1]}]' % (b"1," * (SIZE // 2)),
    "exponents": b'[{"a":[%b1]}]' % (b"1e1000," * (SIZE // 7)),
    "zeros in an exponent": b'[{"a":1e%b}]' % (b"0" * SIZE),
    "one number": b'[{"a":%b}]' % (b"1" * SIZE),
    "numbers of 1,000 digits": b'[{"a":[%b1e1000]}]' % ((b"1" * 1000 + b",") * (SIZE // 1001)),
    "strings": b'[{"b":"e0000","a":[%b1]}]' % (b'"",' * (SIZE // 3)),
    "one string": b'[{"b":1e1000,"a":"%b"}]' % (b"x" * SIZE),
    "escapes": b'[{"b":1e1000,"a":"%b"}]' % (rb"\n" * (SIZE // 2)),
    "quotes": b'[{"b":1e1000,"a":"%b"}]' % (rb"\"" * (SIZE // 2)),
    "backslashes before u0000": rb'[{"a":"%bu0000"}]' % (rb"\\" * (SIZE // 2)),
    "escaped backslashes before u0000": rb'[{"a":"%b"}]' % (rb"\\u0000" * (SIZE // 7)),
    "payloads": b"[%b{}]" % (b"{}," * (SIZE // 3)),
    "a string without an end": b'[{"b":"e0000","a":"%b' % (b"x" * SIZE),
}


def seconds(body: bytes) -> float:
    started = time.process_time()
    with suppress(FastpubsubError):
        parse(body)
    return time.process_time() - started


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_takes_no_longer_than_a_harmless_one(name: str) -> None:
    """Roughly: an expression that looks at each character by itself takes a hundred times as long."""
    harmless = max(min(seconds(HARMLESS) for _ in range(2)), 0.008)
    assert min(seconds(HOSTILE[name]) for _ in range(2)) < 30 * harmless


FILLINGS = {
    "brackets 60 deep": (b"[" * 60 + b"]" * 60 + b",") * (SIZE // 121),
    "numbers": b"1," * (SIZE // 2),
    "texts": b'"",' * (SIZE // 3),
    "exponents": b"1e1000," * (SIZE // 7),
    "escapes": rb'"\n",' * (SIZE // 5),
}
BOUNDS = {
    "levels": (b"[" * 63 + b"]" * 63, b"[" * 64 + b"]" * 64),
    "exponents": (b"1e1000", b"1e1001"),
    "digits": (b'"%b"' % (b"1" * 1001), b"1" * 1001),
}
"""What just fits at the end of a body, and looks as if it would not; and what does not."""

ROUNDS = 10
"""In which a busy machine, which slows single ones, lets each run undisturbed once."""


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("filling", FILLINGS)
def test_what_is_refused_at_its_end_takes_no_longer_than_what_just_fits(filling: str, bound: str) -> None:
    fits, refused = (b'[{"a":[%b1],"b":%b}]' % (FILLINGS[filling], end) for end in BOUNDS[bound])
    parse(fits)
    with pytest.raises(InvalidRequest):
        parse(refused)
    took: list[tuple[float, float]] = []
    while not took or min(one for one, _ in took) >= 2 * min(other for _, other in took) + 0.01:
        assert len(took) < ROUNDS, took
        took.append((seconds(refused), seconds(fits)))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_takes_little_memory(name: str) -> None:
    body = HOSTILE[name][:MEBIBYTE] + HOSTILE[name][-10:]
    tracemalloc.start()
    try:
        seconds(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(body)
