"""Filters of subscriptions: which ones there are, and what passes them. compile_filter makes jsonpaths of them.

The grammar is that of the event patterns of Amazon EventBridge and SNS, where it does not contradict exact values;
docs/http.md has it, with the differences.
"""

import functools
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any

MAX_FIELDS = 100
MAX_VALUES = 1000
MAX_LEVELS = 10
MAX_PATTERNS = 32
MAX_TEXT = 256
"""Of the texts that PostgreSQL makes regular expressions of, and characters of each. It keeps 32 compiled ones."""

ALTERNATIVES = "$or"
ATTRIBUTES = "$attributes"
MESSAGE = "$message"
ORDERING_KEY = "ordering_key"
SCALARS = str | bool | int | float | Decimal | None

NUMERIC: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def is_ignored_case(text: str, wanted: str) -> bool:
    return text.translate(_SMALL) == wanted.translate(_SMALL)


def is_wildcard(text: str, wanted: str) -> bool:
    first, *others = _between_stars(wanted)
    if not others:
        return text == first
    *middle, last = others
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def is_in_network(text: str, wanted: str) -> bool:
    try:
        return IPv4Address(text) in _network(wanted)
    except AddressValueError:
        return False


@functools.lru_cache(maxsize=1024)
def _network(text: str) -> IPv4Network:
    """Raises ValueError for a network that has no prefix length, or bits after it."""
    if not _NETWORK.fullmatch(text):
        raise ValueError(f"{_json(text)} is not an IPv4 network")
    return IPv4Network(text)


TEXTS: dict[str, Callable[[str, str], bool]] = {
    "prefix": str.startswith,
    "suffix": str.endswith,
    "equals-ignore-case": is_ignored_case,
    "wildcard": is_wildcard,
    "cidr": is_in_network,
}
OPERATORS = sorted([*TEXTS, "anything-but", "exists", "numeric"])

_NETWORK = re.compile(r"[0-9.]{7,15}/(?:[12]?[0-9]|3[0-2])")
_SMALL = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


EXACTLY: dict[str, Any] = {"parse_float": Decimal, "parse_int": Decimal, "parse_constant": _refuse}


def read(text: bytes | str) -> Any:
    """Reads JSON with its numbers as `matches` compares them."""
    return json.loads(text, **EXACTLY)


def check(wanted: Any) -> Any:
    """Returns the filter. Raises ValueError, which says what is wrong first and where."""
    if wanted is not None:
        if not isinstance(wanted, dict):
            raise ValueError("a filter must be an object that maps field names to lists of values")
        _Check().fields_of(wanted, 1, of_message=True)
    return wanted


@dataclass(frozen=True)
class Beside:
    """What a message has beside its payload; only where a filter is about the whole message can it ask for it."""

    attributes: Any
    ordering_key: str | None = None

    @property
    def message(self) -> dict[str, Any]:
        return {} if self.ordering_key is None else {ORDERING_KEY: self.ordering_key}


def is_about_message(value: Any) -> bool:
    """Whether an object among the values of `$message` asks for the ordering key; no operator has this name."""
    return isinstance(value, dict) and value.keys() == {ORDERING_KEY} and isinstance(value[ORDERING_KEY], list)


def reads_payload(wanted: Mapping[str, Any]) -> bool:
    """Whether a filter asks for more than attributes, or more than the ordering key."""
    if wanted.keys() == {MESSAGE}:
        values = wanted[MESSAGE]
        return not (isinstance(values, list) and all(map(is_about_message, values)))
    return not (wanted.keys() == {ATTRIBUTES} and isinstance(wanted[ATTRIBUTES], dict))


def matches(wanted: Mapping[str, Any], document: Any, beside: Beside | None = None) -> bool:
    """Whether each named field has one of its values, by JSON type and value. Numbers of both are Decimals."""
    return all(_matches(document, name, values, beside) for name, values in wanted.items())


def _matches(parent: Any, name: str, values: Any, beside: Beside | None) -> bool:
    if not isinstance(values, dict):
        return any(_passes(parent, name, value, beside) for value in values)
    if name == ATTRIBUTES and beside is not None:
        return matches(values, beside.attributes)
    return _has(parent, name) and matches(values, parent[name])


def _passes(parent: Any, name: str, value: Any, beside: Beside | None) -> bool:
    if name == ALTERNATIVES and isinstance(value, dict):
        return matches(value, parent, beside)
    if name == MESSAGE and beside is not None and is_about_message(value):
        return matches(value, beside.message)
    if isinstance(value, dict) and "exists" in value:
        return _has(parent, name) is value["exists"]
    return _has(parent, name) and _fits(parent[name], value)


def _has(parent: Any, name: str) -> bool:
    return isinstance(parent, dict) and name in parent


def _fits(found: Any, value: Any) -> bool:
    if isinstance(found, list | dict):
        return False
    if not isinstance(value, dict):
        return type(found) is type(value) and bool(found == value)
    ((name, operand),) = value.items()
    if name == "anything-but":
        return not any(_fits(found, one) for one in _negated(operand))
    if name == "numeric":
        return isinstance(found, Decimal) and all(NUMERIC[sign](found, number) for sign, number in _pairs(operand))
    return isinstance(found, str) and TEXTS[name](found, operand)


def _negated(operand: Any) -> list[Any]:
    if isinstance(operand, dict):
        ((name, texts),) = operand.items()
        return [{name: text} for text in _listed(texts)]
    return _listed(operand)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _pairs(operand: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(operand[::2], operand[1::2], strict=True)


def _between_stars(wanted: str) -> list[str]:
    r"""The parts of a wildcard that are to be found as they are; `\*` and `\\` are characters."""
    parts = [""]
    for symbol in re.findall(r"\\[*\\]|.", wanted, re.DOTALL):
        if symbol == "*":
            parts.append("")
        else:
            parts[-1] += symbol[-1]
    return parts


@dataclass
class _Check:
    """Counts before it looks at what it has counted, so a filter that is refused costs no more than one that is not."""

    fields: int = 0
    values: int = 0
    patterns: int = 0

    def fields_of(self, wanted: dict[str, Any], level: int, *, of_message: bool = False) -> None:
        if level > MAX_LEVELS:
            raise ValueError(f"a filter has at most {MAX_LEVELS} levels")
        lists = [values for values in wanted.values() if isinstance(values, list)]
        self._count(fields=len(wanted), values=sum(map(len, lists)))
        for name, values in wanted.items():
            self._field(name, values, level, of_message=of_message)

    def _count(self, *, fields: int = 0, values: int = 0) -> None:
        self.fields += fields
        self.values += values
        if self.fields > MAX_FIELDS or self.values > MAX_VALUES:
            raise ValueError(f"a filter has at most {MAX_FIELDS} fields and {MAX_VALUES} values")

    def _field(self, name: str, values: Any, level: int, *, of_message: bool) -> None:
        where = f"the filter of the field {_json(name)}"
        if isinstance(values, dict) and values:
            self.fields_of(values, level + 1)
        elif isinstance(values, list) and values:
            for value in values:
                self._value(where, name, value, level, of_message=of_message)
        else:
            raise ValueError(f"{where} must be a list of at least one value, or an object that names fields in it")

    def _value(self, where: str, name: str, value: Any, level: int, *, of_message: bool) -> None:
        if name == ALTERNATIVES and isinstance(value, dict):
            if not value:
                raise ValueError(f'an alternative of "{ALTERNATIVES}" must name at least one field')
            self.fields_of(value, level + 1, of_message=of_message)
        elif of_message and name == MESSAGE and is_about_message(value):
            self.fields_of(value, level + 1)
        elif isinstance(value, dict):
            self._operator(where, value)
        elif not isinstance(value, SCALARS):
            raise ValueError(f"{where} takes strings, numbers, booleans, null and objects with an operator, not lists")

    def _operator(self, where: str, value: dict[str, Any]) -> None:
        if len(value) != 1:
            raise ValueError(f"{where} has an object with {len(value)} members; an operator stands alone in its object")
        ((name, operand),) = value.items()
        if name in TEXTS:
            self._text(f'{where}: "{name}"', name, operand)
        elif name == "exists":
            if not isinstance(operand, bool):
                raise ValueError(f'{where}: "exists" takes true or false')
        elif name == "numeric":
            self._numeric(where, operand)
        elif name == "anything-but":
            self._anything_but(f'{where}: "anything-but"', operand)
        else:
            known = ", ".join(OPERATORS)
            raise ValueError(f"{where} has the unknown operator {_json(name)}; the operators are {known}")

    def _text(self, where: str, name: str, operand: Any) -> None:
        if not isinstance(operand, str):
            raise ValueError(f"{where} takes a string")  # noqa: TRY004 - Pydantic's validators raise these
        if name == "prefix":
            return
        if len(operand) > MAX_TEXT:
            raise ValueError(f"{where} takes at most {MAX_TEXT} characters, not {len(operand)}")
        if name == "cidr":
            _check_network(where, operand)
        self.patterns += 1
        if self.patterns > MAX_PATTERNS:
            patterns = ", ".join(name for name in sorted(TEXTS) if name != "prefix")
            raise ValueError(f"a filter has at most {MAX_PATTERNS} texts of the operators {patterns}")

    def _numeric(self, where: str, operand: Any) -> None:
        is_right = isinstance(operand, list) and len(operand) in (2, 4)
        for sign, number in _pairs(operand) if is_right else [(None, None)]:
            is_number = isinstance(number, int | float | Decimal) and not isinstance(number, bool)
            if not isinstance(sign, str) or sign not in NUMERIC or not is_number:
                raise ValueError(f'{where}: "numeric" takes one or two comparisons, as in [">=", 0, "<", 100]')

    def _anything_but(self, where: str, operand: Any) -> None:
        if isinstance(operand, dict):
            if len(operand) != 1 or (name := next(iter(operand))) not in TEXTS:
                raise ValueError(f"{where} takes values, or one operator of {', '.join(sorted(TEXTS))}")
            texts = _listed(operand[name])
            self._count(values=len(texts))
            for text in texts:
                self._text(f'{where}: "{name}"', name, text)
        else:
            texts = _listed(operand)
            self._count(values=len(texts))
            if not all(isinstance(one, SCALARS) for one in texts):
                raise ValueError(f"{where} takes strings, numbers, booleans and null")
        if not texts:
            raise ValueError(f"{where} must have at least one value")


def _check_network(where: str, text: str) -> None:
    try:
        _network(text)
    except ValueError:
        raise ValueError(
            f'{where} takes an IPv4 network, its first address and its prefix length, as in "10.1.0.0/16"'
        ) from None


def _json(name: str) -> str:
    return json.dumps(name[:MAX_TEXT], ensure_ascii=False)
