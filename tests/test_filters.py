"""What a filter that is refused is told."""

import json
from typing import Any

import pytest

from fastpubsub import filters

NO_NETWORKS = [
    "",
    "10.0.0.0",
    "10.0.0.1/24",
    "10.0.0/8",
    "256.0.0.0/8",
    "010.0.0.0/8",
    "10.0.0.0/33",
    "10.0.0.0/08",
    "::/0",
]
A = 'the filter of the field "a"'


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ([1], "a filter must be an object that maps field names to lists of values"),
        ({"a": 1}, f"{A} must be a list of at least one value, or an object that names fields in it"),
        ({"a": []}, f"{A} must be a list of at least one value, or an object that names fields in it"),
        ({"a": {}}, f"{A} must be a list of at least one value, or an object that names fields in it"),
        ({"x": {"a": 1}}, f"{A} must be a list of at least one value, or an object that names fields in it"),
        ({"a": [[1]]}, f"{A} takes strings, numbers, booleans, null and objects with an operator, not lists"),
        (
            {"a": [{"pre": "x"}]},
            f'{A} has the unknown operator "pre"; the operators are anything-but, cidr, equals-ignore-case, '
            "exists, numeric, prefix, suffix, wildcard",
        ),
        ({"a": [{}]}, f"{A} has an object with 0 members; an operator stands alone in its object"),
        (
            {"a": [{"prefix": "x", "suffix": "y"}]},
            f"{A} has an object with 2 members; an operator stands alone in its object",
        ),
        ({"a": [{"prefix": 1}]}, f'{A}: "prefix" takes a string'),
        ({"a": [{"wildcard": "x" * 257}]}, f'{A}: "wildcard" takes at most 256 characters, not 257'),
        *(
            (
                {"a": [{"cidr": text}]},
                f'{A}: "cidr" takes an IPv4 network, its first address and its prefix length, as in "10.1.0.0/16"',
            )
            for text in NO_NETWORKS
        ),
        ({"a": [{"exists": 1}]}, f'{A}: "exists" takes true or false'),
        ({"a": [{"numeric": [">"]}]}, f'{A}: "numeric" takes one or two comparisons, as in [">=", 0, "<", 100]'),
        ({"a": [{"anything-but": []}]}, f'{A}: "anything-but" must have at least one value'),
        ({"a": [{"anything-but": [[]]}]}, f'{A}: "anything-but" takes strings, numbers, booleans and null'),
        (
            {"a": [{"anything-but": {"numeric": [">", 1]}}]},
            f'{A}: "anything-but" takes values, or one operator of cidr, equals-ignore-case, prefix, suffix, wildcard',
        ),
        ({"$or": [{}]}, 'an alternative of "$or" must name at least one field'),
        ({str(n): [1] for n in range(101)}, "a filter has at most 100 fields and 1000 values"),
        (
            {"a": [{"suffix": str(n)} for n in range(20)], "b": [{"anything-but": {"wildcard": ["x"] * 13}}]},
            "a filter has at most 32 texts of the operators cidr, equals-ignore-case, suffix, wildcard",
        ),
        ({"a": [{"anything-but": [1] * 1000}]}, "a filter has at most 100 fields and 1000 values"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_each_refusal_says_what_and_where(wanted: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared to the letter
        filters.check(wanted)
    assert str(refused.value) == sentence


def test_levels() -> None:
    deep: dict[str, Any] = {"a": [1]}
    for _ in range(filters.MAX_LEVELS - 1):
        deep = {"a": deep}
    assert filters.check(deep) is deep
    with pytest.raises(ValueError, match="a filter has at most 10 levels"):
        filters.check({"a": deep})
    alternatives: dict[str, Any] = {"a": [1]}
    for _ in range(5000):
        alternatives = {"$or": [alternatives]}
    with pytest.raises(ValueError, match="a filter has at most 10 levels"):
        filters.check(alternatives)


def test_a_wildcard_does_not_track_back() -> None:
    """An engine that does would not come to an end with this."""
    assert not filters.is_wildcard("a" * 100_000, "*a" * 100 + "*b")
