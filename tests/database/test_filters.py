"""compile_filter and what a claim makes of it, against a plain Python reference."""

import json
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpubsub import filters
from fastpubsub.services.sifting import Documents, Sieve
from fastpubsub.testing.store.judging import matches, read_filter
from tests.database.store import EXAMPLES, NOW, Settings, Store
from tests.test_filters import NO_NETWORKS

# (filter, payload, whether it matches)
TRUTH: list[tuple[str, str, bool]] = [
    # no filter
    ("{}", "{}", True),
    ("{}", '{"a": 1}', True),
    ("{}", '{"a": 1e200000}', True),
    # strings
    ('{"a": ["x"]}', '{"a": "x"}', True),
    ('{"a": ["x"]}', '{"a": "X"}', False),
    ('{"a": ["x"]}', '{"a": "x "}', False),
    ('{"a": ["x"]}', '{"a": ""}', False),
    ('{"a": [""]}', '{"a": ""}', True),
    ('{"a": [""]}', "{}", False),
    ('{"a": ["x", "y"]}', '{"a": "y"}', True),
    ('{"a": ["x", "y"]}', '{"a": "z"}', False),
    ('{"company": ["AT&T"]}', '{"company": "AT&T"}', True),
    ('{"company": ["AT&T"]}', '{"company": "AT&amp;T"}', False),
    ('{"company": ["AT&T"]}', '{"name": "AT&T"}', False),
    ('{"a": ["\\u00e9"]}', '{"a": "é"}', True),
    ('{"a": ["é"]}', '{"a": "\\u00e9"}', True),
    ('{"a": ["漢字"]}', '{"a": "漢字"}', True),
    ('{"a": ["\\ud83d\\ude00"]}', '{"a": "😀"}', True),
    ('{"a": ["\\"\\\\/"]}', '{"a": "\\"\\\\/"}', True),
    ('{"a": ["$.b == 1"]}', '{"a": "$.b == 1"}', True),
    ('{"a": ["x\\ny\\t\\u0001"]}', '{"a": "x\\ny\\t\\u0001"}', True),
    # numbers, by value
    ('{"a": [1]}', '{"a": 1}', True),
    ('{"a": [1]}', '{"a": 1.0}', True),
    ('{"a": [1.0]}', '{"a": 1}', True),
    ('{"a": [1]}', '{"a": 1e0}', True),
    ('{"a": [100]}', '{"a": 1E+2}', True),
    ('{"a": [1]}', '{"a": 1.0000000000000000000001}', False),
    ('{"a": [0]}', '{"a": -0}', True),
    ('{"a": [-1.5]}', '{"a": -1.50}', True),
    ('{"a": [-1]}', '{"a": 1}', False),
    ('{"a": [18446744073709551621]}', '{"a": 18446744073709551621}', True),
    ('{"a": [18446744073709551621]}', '{"a": 18446744073709551622}', False),
    ('{"a": [1e308]}', '{"a": 1e308}', True),
    ('{"a": [1e-300]}', '{"a": 1e-300}', True),
    # a number is no string, a boolean neither
    ('{"a": [1]}', '{"a": "1"}', False),
    ('{"a": ["1"]}', '{"a": 1}', False),
    ('{"a": [1]}', '{"a": true}', False),
    ('{"a": [0]}', '{"a": false}', False),
    ('{"a": [true]}', '{"a": true}', True),
    ('{"a": [true]}', '{"a": false}', False),
    ('{"a": [true]}', '{"a": "true"}', False),
    ('{"a": ["true"]}', '{"a": true}', False),
    ('{"a": [true]}', '{"a": 1}', False),
    ('{"a": [false]}', '{"a": false}', True),
    ('{"a": [true, false]}', '{"a": false}', True),
    ('{"a": ["null"]}', '{"a": null}', False),
    ('{"a": [1, "x", true]}', '{"a": "x"}', True),
    # missing, null, arrays and objects never match
    ('{"a": [1]}', "{}", False),
    ('{"a": [1]}', '{"b": 1}', False),
    ('{"a": [1]}', '{"a": null}', False),
    ('{"a": [false]}', '{"a": null}', False),
    ('{"a": [1]}', '{"a": [1]}', False),
    ('{"a": [1]}', '{"a": [[1]]}', False),
    ('{"a": [1]}', '{"a": []}', False),
    ('{"a": [1]}', '{"a": {"a": 1}}', False),
    ('{"a": [1]}', '{"b": {"a": 1}}', False),
    ('{"a": [1]}', '[{"a": 1}]', False),
    ('{"a": [1]}', "1", False),
    ('{"a": [1]}', "null", False),
    # every field counts
    ('{"a": [1], "b": ["x"]}', '{"a": 1, "b": "x"}', True),
    ('{"a": [1], "b": ["x"]}', '{"a": 1, "b": "y"}', False),
    ('{"a": [1], "b": ["x"]}', '{"a": 1}', False),
    ('{"a": [1], "b": ["x"]}', '{"b": "x"}', False),
    ('{"a": [1], "b": ["x"]}', '{"a": [1], "b": "x"}', False),
    # names
    ('{"": [1]}', '{"": 1}', True),
    ('{"A": [1]}', '{"a": 1}', False),
    ('{"a.b": [1]}', '{"a.b": 1}', True),
    ('{"a.b": [1]}', '{"a": {"b": 1}}', False),
    ('{"*": [1]}', '{"a": 1}', False),
    ('{"*": [1]}', '{"*": 1}', True),
    ('{"$": [1]}', '{"$": 1}', True),
    ('{"@": [1]}', '{"a": 1}', False),
    ('{"a\\"b": [1]}', '{"a\\"b": 1}', True),
    ('{"a\\\\b": [1]}', '{"a\\\\b": 1}', True),
    ('{"a\\n": [1]}', '{"a\\n": 1}', True),
    ('{"é": ["漢"]}', '{"\\u00e9": "\\u6f22"}', True),
    ('{"size()": [1]}', '{"size()": 1}', True),
    ('{"a) || (1 == 1": [1]}', '{"b": 2}', False),
    ('{"a": ["\\" || 1 == 1 || \\""]}', '{"a": "x"}', False),
    # of a name that comes twice the last counts
    ('{"a": [1]}', '{"a": 2, "a": 1}', True),
    ('{"a": [1]}', '{"a": 1, "a": 2}', False),
    # what no filter can read does not match
    ('{"a": [1]}', '{"a": 1, "b": 1e200000}', False),
    ('{"a": [1]}', '{"a": 1, "b": "\\u0000"}', False),
    ('{"a": [1]}', '{"a": 1, "b": "\\ud800"}', False),
    # null
    ('{"a": [null]}', '{"a": null}', True),
    ('{"a": [null]}', "{}", False),
    ('{"a": [null]}', '{"a": 0}', False),
    ('{"a": [null, 1]}', '{"a": 1}', True),
    # prefix and suffix
    ('{"a": [{"prefix": "eu-"}]}', '{"a": "eu-west"}', True),
    ('{"a": [{"prefix": "eu-"}]}', '{"a": "us-eu-"}', False),
    ('{"a": [{"prefix": "eu-"}]}', '{"a": "EU-west"}', False),
    ('{"a": [{"prefix": ""}]}', '{"a": ""}', True),
    ('{"a": [{"prefix": ""}]}', '{"a": 1}', False),
    ('{"a": [{"prefix": "a"}]}', '{"a": ["abc"]}', False),
    ('{"a": [{"prefix": "e\\"x"}]}', '{"a": "e\\"xy"}', True),
    ('{"a": [{"prefix": "x"}, "y"]}', '{"a": "y"}', True),
    ('{"a": [{"suffix": ".png"}]}', '{"a": "x.png"}', True),
    ('{"a": [{"suffix": ".png"}]}', '{"a": "xapng"}', False),
    ('{"a": [{"suffix": ".png"}]}', '{"a": "x.png\\n"}', False),
    ('{"a": [{"suffix": ".png"}]}', '{"a": "a\\nx.png"}', True),
    ('{"a": [{"suffix": ".png"}]}', '{"a": ".png.gif"}', False),
    ('{"a": [{"suffix": "[a]^$*+?(){}|\\\\d"}]}', '{"a": "x[a]^$*+?(){}|\\\\d"}', True),
    ('{"a": [{"suffix": "***:x"}]}', '{"a": "***:x"}', True),
    ('{"a": [{"suffix": ""}]}', '{"a": "anything"}', True),
    # letters without case
    ('{"a": [{"equals-ignore-case": "eU-1"}]}', '{"a": "Eu-1"}', True),
    ('{"a": [{"equals-ignore-case": "eU-1"}]}', '{"a": "Eu-1 "}', False),
    ('{"a": [{"equals-ignore-case": "é"}]}', '{"a": "É"}', False),
    ('{"a": [{"equals-ignore-case": "k"}]}', '{"a": "\u212a"}', False),
    ('{"a": [{"equals-ignore-case": "a.c"}]}', '{"a": "ABC"}', False),
    # wildcards
    ('{"a": [{"wildcard": "eu-*-1"}]}', '{"a": "eu-west-1"}', True),
    ('{"a": [{"wildcard": "eu-*-1"}]}', '{"a": "eu--1"}', True),
    ('{"a": [{"wildcard": "eu-*-1"}]}', '{"a": "eu-1"}', False),
    ('{"a": [{"wildcard": "eu-*-1"}]}', '{"a": "xeu-west-1"}', False),
    ('{"a": [{"wildcard": "*a*b*"}]}', '{"a": "1a2\\n3b4"}', True),
    ('{"a": [{"wildcard": "*a*b*"}]}', '{"a": "ba"}', False),
    ('{"a": [{"wildcard": "a*a"}]}', '{"a": "a"}', False),
    ('{"a": [{"wildcard": "a**a"}]}', '{"a": "aa"}', True),
    ('{"a": [{"wildcard": "a\\\\*"}]}', '{"a": "a*"}', True),
    ('{"a": [{"wildcard": "a\\\\*"}]}', '{"a": "ab"}', False),
    ('{"a": [{"wildcard": "a\\\\\\\\*"}]}', '{"a": "a\\\\b"}', True),
    ('{"a": [{"wildcard": "a\\\\d"}]}', '{"a": "a\\\\d"}', True),
    ('{"a": [{"wildcard": ""}]}', '{"a": ""}', True),
    ('{"a": [{"wildcard": "*"}]}', '{"a": 1}', False),
    # numbers by comparison
    ('{"a": [{"numeric": [">", 1]}]}', '{"a": 1.0000000000000000000001}', True),
    ('{"a": [{"numeric": [">", 1]}]}', '{"a": 1.0}', False),
    ('{"a": [{"numeric": [">=", 0, "<", 1e2]}]}', '{"a": 99.99}', True),
    ('{"a": [{"numeric": [">=", 0, "<", 1e2]}]}', '{"a": 100}', False),
    ('{"a": [{"numeric": ["<=", -1]}]}', '{"a": -1}', True),
    ('{"a": [{"numeric": ["=", 1]}]}', '{"a": 1.0}', True),
    ('{"a": [{"numeric": ["=", 1]}]}', '{"a": "1"}', False),
    ('{"a": [{"numeric": ["<", 1]}]}', '{"a": false}', False),
    ('{"a": [{"numeric": ["<", 1]}]}', '{"a": null}', False),
    # whether a field is there
    ('{"a": [{"exists": true}]}', '{"a": null}', True),
    ('{"a": [{"exists": true}]}', '{"a": []}', True),
    ('{"a": [{"exists": true}]}', '{"b": 1}', False),
    ('{"a": [{"exists": false}]}', '{"b": 1}', True),
    ('{"a": [{"exists": false}]}', '{"a": null}', False),
    ('{"a": [{"exists": false}]}', "[1]", True),
    ('{"a": [{"exists": false}, "x"]}', '{"a": "x"}', True),
    ('{"a": [{"exists": false}, "x"]}', '{"a": "y"}', False),
    # anything but
    ('{"a": [{"anything-but": "x"}]}', '{"a": "y"}', True),
    ('{"a": [{"anything-but": "x"}]}', '{"a": "x"}', False),
    ('{"a": [{"anything-but": "x"}]}', '{"a": 1}', True),
    ('{"a": [{"anything-but": "x"}]}', '{"a": null}', True),
    ('{"a": [{"anything-but": "x"}]}', "{}", False),
    ('{"a": [{"anything-but": "x"}]}', '{"a": ["y"]}', False),
    ('{"a": [{"anything-but": "x"}]}', '{"a": {}}', False),
    ('{"a": [{"anything-but": ["x", 1, true, null]}]}', '{"a": 1.0}', False),
    ('{"a": [{"anything-but": ["x", 1, true, null]}]}', '{"a": null}', False),
    ('{"a": [{"anything-but": ["x", 1, true, null]}]}', '{"a": false}', True),
    ('{"a": [{"anything-but": {"prefix": "x"}}]}', '{"a": "xy"}', False),
    ('{"a": [{"anything-but": {"prefix": ["x", "y"]}}]}', '{"a": "z"}', True),
    ('{"a": [{"anything-but": {"prefix": ["x", "y"]}}]}', '{"a": "yz"}', False),
    ('{"a": [{"anything-but": {"suffix": "x"}}]}', '{"a": 5}', True),
    ('{"a": [{"anything-but": {"wildcard": "*x*"}}]}', '{"a": "axa"}', False),
    ('{"a": [{"anything-but": {"equals-ignore-case": "x"}}]}', '{"a": "X"}', False),
    # networks
    ('{"a": [{"cidr": "10.1.0.0/16"}]}', '{"a": "10.1.255.9"}', True),
    ('{"a": [{"cidr": "10.1.0.0/16"}]}', '{"a": "10.2.0.0"}', False),
    ('{"a": [{"cidr": "10.1.0.0/16"}]}', '{"a": "10.1.0.256"}', False),
    ('{"a": [{"cidr": "10.1.0.0/16"}]}', '{"a": "10.1.0.01"}', False),
    ('{"a": [{"cidr": "10.1.0.0/16"}]}', '{"a": "10.1.0.1\\n"}', False),
    ('{"a": [{"cidr": "10.1.0.0/16"}]}', '{"a": "x10.1.0.1"}', False),
    ('{"a": [{"cidr": "10.1.0.0/16"}]}', '{"a": 10}', False),
    ('{"a": [{"cidr": "10.1.0.0/16"}]}', '{"a": "10x1.0.1"}', False),
    ('{"a": [{"cidr": "192.168.4.96/27"}]}', '{"a": "192.168.4.127"}', True),
    ('{"a": [{"cidr": "192.168.4.96/27"}]}', '{"a": "192.168.4.95"}', False),
    ('{"a": [{"cidr": "128.0.0.0/1"}]}', '{"a": "200.1.2.3"}', True),
    ('{"a": [{"cidr": "128.0.0.0/1"}]}', '{"a": "127.255.255.255"}', False),
    ('{"a": [{"cidr": "0.0.0.0/0"}]}', '{"a": "9.99.199.249"}', True),
    ('{"a": [{"cidr": "8.8.8.8/32"}]}', '{"a": "8.8.8.8"}', True),
    ('{"a": [{"cidr": "8.8.8.8/32"}]}', '{"a": "8.8.8.80"}', False),
    ('{"a": [{"anything-but": {"cidr": ["10.0.0.0/8", "8.0.0.0/8"]}}]}', '{"a": "9.0.0.1"}', True),
    ('{"a": [{"anything-but": {"cidr": ["10.0.0.0/8", "8.0.0.0/8"]}}]}', '{"a": "8.0.0.1"}', False),
    # fields of objects
    ('{"a": {"b": [1]}}', '{"a": {"b": 1}}', True),
    ('{"a": {"b": [1]}}', '{"a": {"b": 2}}', False),
    ('{"a": {"b": [1]}}', '{"a": 1}', False),
    ('{"a": {"b": [1]}}', '{"a": [{"b": 1}]}', False),
    ('{"a": {"b": [1]}}', '{"b": 1}', False),
    ('{"a": {"b": {"c": ["x"]}, "d": [true]}}', '{"a": {"b": {"c": "x"}, "d": true}}', True),
    ('{"a": {"b": {"c": ["x"]}, "d": [true]}}', '{"a": {"b": {"c": "x"}}}', False),
    ('{"a": {"b": [{"exists": false}]}}', '{"a": {}}', True),
    ('{"a": {"b": [{"exists": false}]}}', "{}", False),
    ('{"a": {"b": [{"exists": false}]}}', '{"a": 1}', True),
    # alternatives
    ('{"$or": [{"a": [1]}, {"b": [2]}]}', '{"b": 2}', True),
    ('{"$or": [{"a": [1]}, {"b": [2]}]}', '{"a": 2, "b": 1}', False),
    ('{"$or": [{"a": [1], "b": [2]}], "c": [3]}', '{"a": 1, "b": 2, "c": 3}', True),
    ('{"$or": [{"a": [1], "b": [2]}], "c": [3]}', '{"a": 1, "b": 2}', False),
    ('{"x": {"$or": [{"a": [1]}, {"b": {"c": [2]}}]}}', '{"x": {"b": {"c": 2}}}', True),
    ('{"$or": [{"a": [1]}, {"b": [2]}]}', "1", False),
    ('{"$or": ["x"]}', '{"$or": "x"}', True),
    ('{"$or": ["x"]}', '{"a": "x"}', False),
    # spaces
    (' { "a" : [ 1 , 2 ] } ', ' { "a" : 2 } ', True),
]


@pytest.mark.parametrize(("wanted", "payload", "expected"), TRUTH)
def test_the_table(store: Store, wanted: str, payload: str, expected: bool) -> None:
    keys = store.create(filter=wanted)
    store.publish(keys.topic, [payload])
    claimed = store.claim(keys)
    assert claimed.positions == [1] * expected
    assert (claimed.scanned, claimed.last) == (1, 1)
    assert store.metrics(keys).acked == 0


READABLE = [row for row in TRUTH if "1e200000" not in row[1] and "u0000" not in row[1] and "ud800" not in row[1]]


@pytest.mark.parametrize(("wanted", "payload", "expected"), READABLE)
def test_the_reference_agrees_with_the_table(wanted: str, payload: str, expected: bool) -> None:
    assert matches(read_filter(wanted), payload.encode()) == expected


def test_every_filter_of_the_table_with_every_payload(store: Store) -> None:
    topic = store.create_topic()
    payloads = sorted({payload for _, payload, _ in READABLE})
    store.publish(topic, payloads)
    for number, wanted in enumerate(sorted({wanted for wanted, _, _ in TRUTH})):
        settings = Settings(filter=wanted, start="earliest")
        keys = store.create_subscription(str(number), settings=settings)
        assert store.metrics(keys).ahead == len(claimed := store.claim(keys, 1000).payloads)
        assert claimed == [payload for payload in payloads if matches(read_filter(wanted), payload.encode())]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([1.0, -0.0])
)
SCALARS = st.one_of(st.booleans(), NUMBERS, TEXTS)
NAMES = st.one_of(st.sampled_from("ab"), TEXTS)
VALUES = st.one_of(st.none(), SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(NAMES, SCALARS, max_size=2))


SHORT = st.text(st.sampled_from("aB.*\\\nkK"), max_size=3)
ADDRESSES = st.ip_addresses(v=4).map(str)
NETWORKS = st.builds(
    lambda address, bits: str(IPv4Network((address, bits), strict=False)), ADDRESSES, st.integers(0, 32)
)
TEXT_OPERATORS = st.one_of(
    st.builds(lambda name, text: {name: text}, st.sampled_from(sorted(set(filters.TEXTS) - {"cidr"})), SHORT),
    st.builds(lambda network: {"cidr": network}, NETWORKS),
)
SIGNS = st.sampled_from(sorted(filters.NUMERIC))
OPERATORS = st.one_of(
    TEXT_OPERATORS,
    st.builds(lambda value: {"exists": value}, st.booleans()),
    st.builds(lambda sign, number: {"numeric": [sign, number]}, SIGNS, NUMBERS),
    st.builds(lambda *parts: {"numeric": list(parts)}, SIGNS, NUMBERS, SIGNS, NUMBERS),
    st.builds(lambda value: {"anything-but": value}, st.one_of(SCALARS, st.lists(SCALARS, min_size=1, max_size=3))),
    st.builds(lambda value: {"anything-but": value}, TEXT_OPERATORS),
)
COMPARED = st.lists(st.one_of(st.none(), SCALARS, SHORT, OPERATORS), min_size=1, max_size=3)


def with_levels(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(NAMES, st.one_of(COMPARED, inner), min_size=1, max_size=2)
    return st.one_of(fields, st.builds(lambda one: {"$or": one}, st.lists(fields, min_size=1, max_size=2)))


OF_PAYLOADS = st.recursive(st.dictionaries(NAMES, COMPARED, min_size=1, max_size=2), with_levels, max_leaves=4)
OF_ATTRIBUTES = st.builds(
    lambda one, two: {"$attributes": one, **two},
    st.dictionaries(NAMES, COMPARED, min_size=1, max_size=2),
    st.one_of(st.just({}), st.just({}), OF_PAYLOADS),
)
OF_KEYS = st.builds(
    lambda keys, rest: {"$message": [{"ordering_key": key} for key in keys], **rest},
    st.lists(COMPARED, min_size=1, max_size=2),
    st.one_of(st.just({}), OF_PAYLOADS, OF_ATTRIBUTES),
)
FILTERS = st.one_of(
    OF_PAYLOADS,
    OF_ATTRIBUTES,
    OF_KEYS,
    st.builds(lambda *some: {"$or": list(some)}, OF_PAYLOADS, st.one_of(OF_ATTRIBUTES, OF_KEYS)),
)
LEAVES = st.one_of(st.none(), SCALARS, SHORT)
DOCUMENTS = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=2),
    lambda inner: st.dictionaries(NAMES, st.one_of(LEAVES, inner, st.lists(LEAVES, max_size=2)), max_size=3),
    max_leaves=4,
)
CONTEXTS = st.dictionaries(NAMES, st.one_of(TEXTS, SHORT), min_size=1, max_size=2)


def scalars(wanted: Any) -> Iterator[Any]:
    """What stands in a filter, so that a payload can have it."""
    for one in wanted.values() if isinstance(wanted, dict) else wanted if isinstance(wanted, list) else ():
        if isinstance(one, dict | list):
            yield from scalars(one)
        else:
            yield one


class Logged(NamedTuple):
    """As a listener of the topic sees it."""

    payload: bytes
    attributes: bytes | None
    ordering_key: str | None


@settings(max_examples=EXAMPLES * 10)
@given(data=st.data())
def test_any_filter_and_any_payload(store: Store, data: st.DataObject) -> None:
    wanted: dict[str, Any] = data.draw(FILTERS)
    filters.check(wanted)
    some = st.sampled_from([*scalars(wanted), "aB"])
    fitting = st.dictionaries(NAMES, st.one_of(some, st.dictionaries(NAMES, some, max_size=2)), max_size=2)
    payload: dict[str, Any] = data.draw(DOCUMENTS) | data.draw(fitting)
    text = json.dumps(payload, ensure_ascii=data.draw(st.booleans()))
    attributes = data.draw(st.one_of(st.none(), CONTEXTS))
    context = json.dumps(attributes)
    key: str | None = data.draw(st.one_of(st.none(), TEXTS.filter(bool), st.sampled_from(["aB", "1", "10.1.2.3"])))
    query = "select fastpubsub.passes_filter(%s, %s, fastpubsub.compile_filter(%s::json), %s)"
    given = json.dumps(wanted, ensure_ascii=data.draw(st.booleans()))
    passes = store.value(query, text, None if attributes is None else context, given, key)
    assert passes == matches(read_filter(given), text.encode(), context.encode(), key)
    message = Logged(text.encode(), None if attributes is None else context.encode(), key)
    assert passes == (Documents([message]).passing(Sieve.of(given)) == [0])


@settings(max_examples=EXAMPLES * 5)
@given(network=NETWORKS, address=ADDRESSES, is_near=st.booleans())
def test_any_network_and_any_address(store: Store, network: str, address: str, is_near: bool) -> None:
    if is_near:  # its first bits are those of the network
        size = IPv4Network(network).num_addresses
        address = str(IPv4Network(network)[int(IPv4Address(address)) % size])
    query = "select fastpubsub.passes_filter(%s, null, fastpubsub.compile_filter(%s::json))"
    passes = store.value(query, json.dumps({"a": address}), json.dumps({"a": [{"cidr": network}]}))
    assert passes == (IPv4Address(address) in IPv4Network(network))


@pytest.mark.parametrize("network", NO_NETWORKS)
def test_what_is_no_network(store: Store, network: str) -> None:
    assert store.value("select fastpubsub.network_pattern(%s)", network) is None


TWICE = ['{"a": [1], "a": [2]}', '{"a": [1], "\\u0061": [2]}', '{"a": {"b": [1], "b": [2]}}']
# (filter, attributes, whether a message passes with any payload)
OF_CONTEXT: list[tuple[str, str | None, bool]] = [
    ('{"$attributes": {"source": ["shop"]}}', '{"source": "shop"}', True),
    ('{"$attributes": {"source": ["shop"]}}', '{"source": "bank"}', False),
    ('{"$attributes": {"source": ["shop"]}}', None, False),
    ('{"$attributes": {"source": [1]}}', '{"source": "1"}', False),
    ('{"$attributes": {"source": [{"prefix": "/eu/"}], "type": ["a"]}}', '{"source": "/eu/1", "type": "a"}', True),
    ('{"$attributes": {"source": [{"exists": false}]}}', '{"type": "a"}', True),
    ('{"$attributes": {"source": [{"exists": false}]}}', None, True),
    ('{"$attributes": {"$or": [{"a": ["1"]}, {"b": ["1"]}]}}', '{"b": "1"}', True),
    ('{"$attributes": ["source"]}', '{"source": "source"}', False),
    ('{"x": {"$attributes": {"source": ["shop"]}}}', '{"source": "shop"}', False),
    ('{"$or": [{"$attributes": {"a": ["1"]}}, {"n": [2]}]}', '{"a": "1"}', True),
    ('{"$or": [{"$attributes": {"a": ["1"]}}, {"n": [2]}]}', '{"a": "2"}', False),
    ('{"$attributes": {"a": ["1"]}, "n": [1]}', '{"a": "1"}', True),
    ('{"$attributes": {"a": ["1"]}, "n": [2]}', '{"a": "1"}', False),
    ('{"$attributes": {"a": ["1"]}, "n": [1]}', '{"a": "2"}', False),
    ('{"a\\"$\\"attributes\\"": [1]}', '{"a": "1"}', False),
]


@pytest.mark.parametrize(("wanted", "attributes", "expected"), OF_CONTEXT)
def test_attributes(store: Store, wanted: str, attributes: str | None, expected: bool) -> None:
    """A field of the payload can have the name, too: as a list it means that, and inside of an object."""
    payload = '{"n": 1, "x": {}}'
    keys = store.create(filter=wanted)
    store.publish(keys.topic, [payload], attributes=[attributes])
    assert store.claim(keys).positions == [1] * expected
    assert matches(read_filter(wanted), payload.encode(), (attributes or "null").encode()) == expected


def test_a_filter_on_attributes_alone_does_not_read_payloads(store: Store) -> None:
    keys = store.create(filter='{"$attributes": {"a": ["1"]}}')
    store.publish(keys.topic, ['{"n": 1e200000}'] * 2, attributes=['{"a": "1"}', '{"a": "2"}'])
    claimed = store.claim(keys)
    assert (claimed.positions, claimed.unreadable) == ([1], [])


# (filter, ordering key, payload, whether a message passes)
OF_KEY: list[tuple[str, str | None, str, bool]] = [
    ('{"$message": [{"ordering_key": ["a", "b"]}]}', "b", "{}", True),
    ('{"$message": [{"ordering_key": ["a", "b"]}]}', "c", "{}", False),
    ('{"$message": [{"ordering_key": ["a"]}]}', None, '{"ordering_key": "a"}', False),
    ('{"$message": [{"ordering_key": [{"prefix": "eu-"}]}]}', "eu-1", "{}", True),
    ('{"$message": [{"ordering_key": [{"anything-but": {"prefix": "eu-"}}]}]}', "us-1", "{}", True),
    ('{"$message": [{"ordering_key": [{"anything-but": {"prefix": "eu-"}}]}]}', None, "{}", False),
    ('{"$message": [{"ordering_key": [{"exists": false}]}]}', None, "{}", True),
    ('{"$message": [{"ordering_key": [{"exists": false}]}]}', "a", "{}", False),
    ('{"$message": [{"ordering_key": ["a"]}, {"ordering_key": [{"exists": false}]}]}', None, "{}", True),
    ('{"$message": [{"ordering_key": ["a"]}], "n": [1]}', "a", '{"n": 1}', True),
    ('{"$message": [{"ordering_key": ["a"]}], "n": [1]}', "a", '{"n": 2}', False),
    ('{"$or": [{"$message": [{"ordering_key": ["a"]}]}, {"n": [1]}]}', "a", "{}", True),
    ('{"$or": [{"$message": [{"ordering_key": ["a"]}]}, {"n": [1]}]}', "b", '{"n": 2}', False),
    # What was a filter before means the same: these are fields of the payload.
    ('{"$message": ["a"]}', "a", "{}", False),
    ('{"$message": ["a"]}', None, '{"$message": "a"}', True),
    ('{"$message": ["a", {"ordering_key": ["b"]}]}', None, '{"$message": "a"}', True),
    ('{"$message": ["a", {"ordering_key": ["b"]}]}', "b", "{}", True),
    ('{"$message": {"ordering_key": ["a"]}}', "a", "{}", False),
    ('{"$message": {"ordering_key": ["a"]}}', None, '{"$message": {"ordering_key": "a"}}', True),
    ('{"$message": [{"exists": true}]}', "a", "{}", False),
    ('{"a\\"$\\"message\\"": [1]}', "a", "{}", False),
]


@pytest.mark.parametrize(("wanted", "key", "payload", "expected"), OF_KEY)
def test_ordering_keys(store: Store, wanted: str, key: str | None, payload: str, expected: bool) -> None:
    filters.check(filters.read(wanted))
    for name, ordered in (("plain", False), ("ordered", True)):
        topic = store.create_topic(name)
        keys = store.create_subscription(name, name, settings=Settings(filter=wanted, ordered=ordered))
        store.publish(topic, [payload], ordering_keys=[key])
        assert store.claim(keys).positions == [1] * expected
    assert matches(read_filter(wanted), payload.encode(), b"null", key) == expected
    message = Logged(payload.encode(), None, key)
    assert Documents([message]).passing(Sieve.of(wanted)) == [0] * expected


def test_a_filter_on_ordering_keys_alone_does_not_read_payloads(store: Store) -> None:
    keys = store.create(filter='{"$message": [{"ordering_key": ["a"]}, {"ordering_key": ["b"]}]}')
    store.publish(keys.topic, ['{"n": 1e200000}'] * 3, ordering_keys=["a", "c", "b"])
    claimed = store.claim(keys)
    assert (claimed.positions, claimed.unreadable) == ([1, 3], [])


def test_payloads_that_cannot_be_read_beside_ordering_keys(store: Store) -> None:
    """The others are judged one by one."""
    keys = store.create(filter='{"$message": [{"ordering_key": ["a"]}], "n": [1]}')
    store.publish(keys.topic, ['{"n": 1}', '{"n": 1e200000}', '{"n": 1}'], ordering_keys=["a", "a", "b"])
    claimed = store.claim(keys)
    assert (claimed.positions, claimed.unreadable) == ([1], [2])


REFUSED = [
    *TWICE,
    '{"$message": [{"ordering_key": {"a": ["b"]}}]}',
    '{"$message": [{"ordering_key": []}]}',
    '{"$message": [{"ordering_key": ["a"], "payload": ["b"]}]}',
    '{"x": {"$message": [{"ordering_key": ["a"]}]}}',
    '{"x": [{"ordering_key": ["a"]}]}',
    "[]",
    '"x"',
    "1",
    "true",
    '{"a": 1}',
    '{"a": "x"}',
    '{"a": null}',
    '{"a": {}}',
    '{"a": []}',
    '{"a": [[1]]}',
    '{"a": [{}]}',
    '{"a": [1], "b": []}',
    json.dumps({str(number): [1] for number in range(101)}),
    json.dumps({"a": list(range(1001))}),
    json.dumps({str(number): list(range(11)) for number in range(92)}),
    '{"a": [{"b": 1}]}',
    '{"a": [{"prefix": "x", "suffix": "y"}]}',
    '{"a": [{"prefix": 1}]}',
    '{"a": [{"prefix": ["x"]}]}',
    '{"a": [{"suffix": null}]}',
    '{"a": [{"wildcard": {}}]}',
    '{"a": [{"equals-ignore-case": true}]}',
    '{"a": [{"numeric": []}]}',
    '{"a": [{"numeric": [">"]}]}',
    '{"a": [{"numeric": ["!=", 1]}]}',
    '{"a": [{"numeric": [">", "1"]}]}',
    '{"a": [{"numeric": [">", 1, "<"]}]}',
    '{"a": [{"numeric": [">", 1, "x", 2]}]}',
    '{"a": [{"numeric": [">", 1, "<", 2, "<", 3]}]}',
    '{"a": [{"numeric": 1}]}',
    '{"a": [{"exists": 1}]}',
    '{"a": [{"exists": "true"}]}',
    '{"a": [{"anything-but": []}]}',
    '{"a": [{"anything-but": [[1]]}]}',
    '{"a": [{"anything-but": {}}]}',
    '{"a": [{"anything-but": {"prefix": 1}}]}',
    '{"a": [{"anything-but": {"prefix": []}}]}',
    '{"a": [{"anything-but": {"numeric": [">", 1]}}]}',
    '{"a": [{"anything-but": {"prefix": "x", "suffix": "y"}}]}',
    '{"a": {"b": 1}}',
    '{"a": {"b": []}}',
    '{"a": {"b": {}}}',
    '{"$or": []}',
    '{"$or": [{}]}',
    '{"$or": [{"a": 1}]}',
    '{"$or": {"a": 1}}',
    '{"a": ' * 10 + '{"b": [1]}' + "}" * 10,
    json.dumps({"a": [{"anything-but": list(range(1001))}]}),
    json.dumps({"$or": [{"a": list(range(400))}] * 3}),
    json.dumps({"$or": [{str(number): [1] for number in range(40)}] * 3}),
]


@pytest.mark.parametrize(
    "wanted",
    REFUSED,
    ids=lambda wanted: wanted[:30],
)
def test_what_is_no_filter_is_refused(store: Store, wanted: str) -> None:
    with store.refused("FP422"):
        store.create(filter=wanted)
    store.create()
    with store.refused("FP422"):
        store.update_subscription("subscription", change_filter=True, filter=wanted)


@pytest.mark.parametrize("wanted", REFUSED, ids=lambda wanted: wanted[:30])
def test_python_refuses_the_same(wanted: str) -> None:
    """A name that comes twice is gone once JSON is parsed; services/subscriptions.py looks for it."""
    value = json.loads(wanted)
    if wanted not in TWICE:
        with pytest.raises(ValueError, match=r"filter|alternative"):
            filters.check(value)


@pytest.mark.parametrize("wanted", [None, "null", "{}"])
def test_no_filter_is_no_path(store: Store, wanted: str | None) -> None:
    assert store.value("select fastpubsub.compile_filter(%s::json)", wanted) is None


def test_the_largest_filter(store: Store) -> None:
    keys = store.create(filter=json.dumps({str(number): list(range(10)) for number in range(100)}))
    store.publish(keys.topic, [json.dumps({str(number): 9 for number in range(100)}), "{}"])
    assert store.claim(keys).positions == [1]


def test_unreadable_messages_are_reported_and_hold_up_nobody(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    payloads = ['{"a": 1}', '{"a": 1, "n": 1e200000}', '{"a": 1}', '{"x": "\\ud800"}', "{}", '{"a": 1, "x": "\\u0000"}']
    store.publish(keys.topic, [*payloads, '{"a": 1}'], now=NOW)
    first = store.claim(keys, 2)
    assert (first.positions, first.unreadable, first.unreadable_created_at) == ([1, 3], [2], [NOW])
    second = store.claim(keys)
    assert (second.positions, second.unreadable) == ([7], [4, 6])
    assert second.unreadable_created_at == [NOW, NOW]
    assert (second.scanned, second.last) == (7, 7)
    store.ack(keys, first.ids + second.ids)
    metrics = store.metrics(keys)
    assert (metrics.ahead, metrics.acked) == (0, 3)


def test_only_unreadable_messages(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.publish(keys.topic, ['{"a": 1e200000}'] * 3)
    claimed = store.claim(keys)
    assert (claimed.positions, claimed.unreadable, claimed.scanned) == ([], [1, 2, 3], 3)
    assert store.claim(keys).unreadable == []


@pytest.mark.parametrize("depth", [64, 1000, 6000])
def test_nesting_fails_nobody(store: Store, depth: int) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.publish(keys.topic, ['{"a": 1, "b": ' + "[" * depth + "]" * depth + "}", '{"a": 1}'])
    assert 2 in store.claim(keys).positions


def test_without_a_filter_everything_is_delivered_verbatim(store: Store) -> None:
    keys = store.create()
    payloads = ['{"a": 1e200000}', '{"x": "\\ud800"}', '{"x": "\\u0000"}']
    store.publish(keys.topic, payloads)
    assert store.claim(keys).payloads == payloads


def test_what_is_ahead_is_judged_by_the_new_filter(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.publish(keys.topic, ['{"a": 1}', '{"a": 2}', '{"a": 1}', '{"a": 2}'])
    assert store.claim(keys, 1).positions == [1]
    store.update_subscription("subscription", change_filter=True, filter='{"a": [2]}')
    assert store.metrics(keys).ahead == 2
    assert store.claim(keys, 1).positions == [2]
    store.update_subscription("subscription", change_filter=True, filter=None)
    assert store.metrics(keys).ahead == 2
    assert store.claim(keys).positions == [3, 4]


def test_what_a_filter_skipped_does_not_come_back(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.publish(keys.topic, ['{"a": 2}', '{"a": 1}'])
    store.claim(keys)
    store.update_subscription("subscription", change_filter=True, filter=None)
    assert store.claim(keys).positions == []
