"""What passes two filters, as a filter."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

Filter: TypeAlias = Mapping[str, Any]


def both(one: Filter, other: Filter) -> Filter | None:
    """None when nothing passes both, or no filter says what does."""
    narrowed = {**one, **other}
    for field in one.keys() & other.keys():
        common = _common(one[field], other[field])
        if common is None:
            return None
        narrowed[field] = common
    return narrowed


def _common(one: Any, other: Any) -> Any:
    """A field has one of its values. Of operators, and of alternatives, only the same are known to be in both."""
    if _key(one) == _key(other):
        return one
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return both(one, other)
    if not isinstance(one, list) or not isinstance(other, list):
        return None
    shared = [value for value in one if _key(value) in map(_key, other)]
    is_exact = len(shared) in (len(one), len(other)) or not any(isinstance(value, dict) for value in [*one, *other])
    return shared if shared and is_exact else None


def _key(value: Any) -> str:
    """True differs from 1, and 1.0 does not."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return repr(value)
    return repr(Decimal(str(value)).normalize())
