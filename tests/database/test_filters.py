"""compile_filter and what a claim makes of it, against a plain Python reference."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastpubsub.testing.store import matches, read_filter
from tests.database.store import EXAMPLES, NOW, Settings, Store

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


@settings(max_examples=EXAMPLES * 3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_filter_and_any_payload(store: Store, data: st.DataObject) -> None:
    wanted: dict[str, list[Any]] = data.draw(
        st.dictionaries(NAMES, st.lists(SCALARS, min_size=1, max_size=3), max_size=3)
    )
    fitting = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in wanted.items()})
    payload: dict[str, Any] = data.draw(st.dictionaries(NAMES, VALUES, max_size=3)) | data.draw(
        st.one_of(st.just({}), fitting)
    )
    text = json.dumps(payload, ensure_ascii=data.draw(st.booleans()))
    query = "select coalesce(%s::jsonb @? fastpubsub.compile_filter(%s::json), true)"
    given = json.dumps(wanted, ensure_ascii=data.draw(st.booleans()))
    assert store.value(query, text, given) == matches(read_filter(given), text.encode())


@pytest.mark.parametrize(
    "wanted",
    [
        "[]",
        '"x"',
        "1",
        "true",
        '{"a": 1}',
        '{"a": "x"}',
        '{"a": null}',
        '{"a": {}}',
        '{"a": []}',
        '{"a": [null]}',
        '{"a": [[1]]}',
        '{"a": [{}]}',
        '{"a": [1, null]}',
        '{"a": [1], "b": []}',
        '{"a": [1], "a": [2]}',
        '{"a": [1], "\\u0061": [2]}',
        json.dumps({str(number): [1] for number in range(101)}),
        json.dumps({"a": list(range(1001))}),
        json.dumps({str(number): list(range(11)) for number in range(92)}),
    ],
    ids=lambda wanted: wanted[:30],
)
def test_what_is_no_filter_is_refused(store: Store, wanted: str) -> None:
    with store.refused("FP422"):
        store.create(filter=wanted)
    store.create()
    with store.refused("FP422"):
        store.update_subscription("subscription", change_filter=True, filter=wanted)


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
