"""Database URLs as people write them."""

import pytest
from sqlalchemy import create_engine

from fastpubsub.database.urls import normalise


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_scheme_becomes_ours(scheme: str) -> None:
    assert normalise(f"{scheme}://u:p@h:5433/d").render_as_string(False) == "postgresql+psycopg://u:p@h:5433/d"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%25q%2F%40@h/d", {"user": "u", "password": "p%q/@", "host": "h", "dbname": "d"}),
        ("postgresql://u:a%b@h/d", {"user": "u", "password": "a%b", "host": "h", "dbname": "d"}),
        ("postgresql://u:a@b:c@h/d", {"user": "u", "password": "a@b:c", "host": "h", "dbname": "d"}),
        ("postgresql://u@/d?host=/run/x", {"user": "u", "host": "/run/x", "dbname": "d"}),
        ("postgresql:///d?host=/run/x&port=5433", {"host": "/run/x", "port": "5433", "dbname": "d"}),
        ("postgresql://%2Frun%2Fmy%20x:5433/d", {"host": "/run/my x", "port": 5433, "dbname": "d"}),
        ("postgresql://u@[::1]:5433/d", {"user": "u", "host": "::1", "port": 5433, "dbname": "d"}),
        (
            "postgres://u:p@h1:1,h2:2/d?target_session_attrs=read-write",
            {"user": "u", "password": "p", "host": "h1,h2", "port": "1,2", "dbname": "d"}
            | {"target_session_attrs": "read-write"},
        ),
        ("postgresql://h/d?sslmode=require", {"host": "h", "dbname": "d", "sslmode": "require"}),
    ],
)
def test_what_reaches_the_driver(url: str, expected: dict[str, object]) -> None:
    engine = create_engine(normalise(url))
    _, arguments = engine.dialect.create_connect_args(engine.url)
    del arguments["context"]
    assert arguments == expected


@pytest.mark.parametrize("url", ["", "secret", "mysql://u:secret@h/d", "postgresql+asyncpg://u:secret@h/d"])
def test_anything_else_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"the database URL .*: write postgresql") as refused:
        normalise(url)
    assert "secret" not in str(refused.value)


def test_a_port_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a URL"):
        normalise("postgresql://h:port/d")
