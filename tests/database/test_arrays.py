"""Each type of array goes through PostgreSQL and comes back, whatever is in it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpubsub.database.arrays import TIMES_OID, Array, ArrayDumper, TimesLoader
from tests.harness import libpq

TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int4": st.integers(-(2**31), 2**31 - 1),
    "int8": st.integers(-(2**63), 2**63 - 1),
    "text": TEXT,
    "bytea": st.binary(),
    "json": JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode()),
    "jsonb": JSON.map(lambda value: json.dumps(value).encode()),
    "timestamptz": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES),  # noqa: DTZ001 - Hypothesis adds it
}


@pytest.fixture(scope="module")
def postgres(shared_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(libpq(shared_database_url), autocommit=True) as connection:
        connection.adapters.register_dumper(Array, ArrayDumper)
        connection.adapters.register_loader(TIMES_OID, TimesLoader)
        connection.execute("set timezone to 'UTC'")
        yield connection


def returned(postgres: psycopg.Connection, array: Array) -> tuple[str, list[Any]]:
    """The type that PostgreSQL saw, and the items."""
    items = "v::text" if array.element.startswith("json") else "v"
    query = f"select pg_typeof(a)::text, array(select {items} from unnest(a) as v) from (select %s as a) as one"
    (row,) = postgres.execute(query.encode(), [array], binary=True).fetchall()
    return row


def expected(element: str, item: Any) -> Any:
    return item.decode() if item is not None and element.startswith("json") else item


@pytest.mark.parametrize("element", VALUES)
@settings(max_examples=50)
@given(data=st.data())
def test_round_trip(postgres: psycopg.Connection, element: str, data: st.DataObject) -> None:
    items = data.draw(st.lists(st.none() | VALUES[element]))
    _, found = returned(postgres, Array(element, items))
    if element == "jsonb":
        assert [one and json.loads(one) for one in found] == [one and json.loads(one) for one in items]
    else:
        assert found == [expected(element, item) for item in items]


@pytest.mark.parametrize("element", VALUES)
@pytest.mark.parametrize("items", [[], [None], [None, None, None], ()])
def test_nothing_has_the_type_too(postgres: psycopg.Connection, element: str, items: list[None]) -> None:
    kind, found = returned(postgres, Array(element, items))
    names = {"int4": "integer[]", "int8": "bigint[]", "timestamptz": "timestamp with time zone[]"}
    assert kind == names.get(element, f"{element}[]")
    assert found == list(items)


def test_what_is_no_json_is_refused_by_postgresql(postgres: psycopg.Connection) -> None:
    for element in ("json", "jsonb"):
        with pytest.raises(psycopg.DataError):
            returned(postgres, Array(element, [b"{}", b"{"]))


def test_arrays_of_several_types_in_one_prepared_call(postgres: psycopg.Connection) -> None:
    query = "select a[1], b[1], c[1] from (select %s as a, %s as b, %s as c) as one"
    time = datetime(2026, 11, 21, tzinfo=UTC)
    for n in range(10):
        arrays = [Array("int8", [n]), Array("text", [str(n)]), Array("timestamptz", [time] if n % 2 else [])]
        (row,) = postgres.execute(query, arrays, prepare=True, binary=True)
        assert row == (n, str(n), time if n % 2 else None)
    prepared = postgres.execute("select from pg_prepared_statements where statement like 'select a[1], b[1], c[1]%'")
    assert len(prepared.fetchall()) == 1
