"""The check of procedures for several nodes, by procedures that break each of its rules, and some that break none."""

import pytest

from tests import procedures, spreading
from tests.spreading import Problem, problems

HEAD = "create or replace function fastpubsub.one(p_topic_key bigint) returns void\nlanguage plpgsql volatile\nas $$\n"


def found(*bodies: str) -> set[tuple[str, str]]:
    """In the functions `one` and `reader`, without `reader` itself."""
    sources = dict(zip(("one", "reader"), (f"{HEAD}begin\n{body}\nend;\n$$;\n" for body in bodies), strict=False))
    return {(one.rule, one.what) for one in problems(sources) if one.procedure == "one"}


READER = "perform from fastpubsub.messages as m where m.topic_key = p_topic_key;"


@pytest.mark.parametrize(
    ("body", "rule", "what"),
    [
        ("perform from fastpubsub.heads as h;", "topics", "heads"),
        ("perform from fastpubsub.heads as h where h.topic_key = any(p_topic_keys);", "topics", "heads"),
        ("perform from fastpubsub.heads as h where h.topic_key = p_topic_keys[1];", "topics", "heads"),
        (
            "perform from fastpubsub.cursors as c join fastpubsub.leases as l"
            " on l.subscription_key = c.subscription_key where c.topic_key = p_topic_key;",
            "topics",
            "leases",
        ),
        (
            "perform from fastpubsub.cursors as c join fastpubsub.leases as l on l.topic_key = c.topic_key;",
            "topics",
            "leases",
        ),
        (
            "if exists (select from fastpubsub.messages as m) or exists (select from fastpubsub.messages as m"
            " where m.topic_key = p_topic_key) then return; end if;",
            "topics",
            "messages",
        ),
        (
            "delete from fastpubsub.retries as r using unnest(p_keys) as u (k) where r.topic_key = u.k;",
            "topics",
            "retries",
        ),
        (
            "perform from fastpubsub.topics as t join fastpubsub.heads as h on h.topic_key = t.topic_key"
            " where t.id = p_id for update of h;",
            "lock",
            "topics",
        ),
        (
            "perform from fastpubsub.heads as h where h.topic_key = any(p_topic_keys) for update;",
            "lock",
            "heads",
        ),
        (
            "delete from fastpubsub.claims as c where c.topic_key = p_topic_key and c.ctid = any(v_rows);",
            "ctid",
            "claims",
        ),
        ("perform from fastpubsub.jobs as j for update skip locked;", "turn", "jobs"),
        ("perform from fastpubsub.unknown as u;", "table", "unknown"),
        ("execute format('delete from %s', p_name);", "hidden", "execute"),
        (
            "update fastpubsub.cursors as c set paused_at = clock_timestamp() where c.topic_key = p_topic_key;",
            "clock",
            "cursors",
        ),
        ("update fastpubsub.endpoints as e set version = default;", "clock", "endpoints"),
        (
            "perform from fastpubsub.leases as l where l.topic_key = p_topic_key and fastpubsub.reader(l.topic_key);",
            "call",
            "reader",
        ),
    ],
)
def test_what_cannot_spread(body: str, rule: str, what: str) -> None:
    assert (rule, what) in found(body, READER)


@pytest.mark.parametrize(
    "body",
    [
        READER,
        "-- perform from fastpubsub.heads as h;",
        "perform from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;",
        "perform from fastpubsub.heads as h where h.topic_key = one.topic_key;",
        "perform from fastpubsub.heads as h where v_purge.topic_key = h.topic_key;",
        "insert into fastpubsub.leases (topic_key) values (p_topic_key);",
        "perform from fastpubsub.cursors as c cross join lateral (select n.position from fastpubsub.claims as n"
        " where n.topic_key = c.topic_key) as n where c.topic_key = p_topic_key;",
        "v_last := fastpubsub.reader(p_topic_key); perform from fastpubsub.heads as h where h.topic_key = p_topic_key;",
        "perform from fastpubsub.jobs as j where j.name = 'one' for update;",
        "v_now := clock_timestamp(); update fastpubsub.cursors as c set paused_at = v_now"
        " where c.topic_key = p_topic_key;",
        "perform from fastpubsub.topics as t where t.id = p_id;",
    ],
)
def test_what_can(body: str) -> None:
    assert found(body, READER) == set()


def test_a_function_in_sql() -> None:
    head = HEAD.replace("plpgsql", "sql")
    in_sql = Problem("one", "sql", "heads")
    body = "select from fastpubsub.heads as h where h.topic_key = p_topic_key;"
    assert problems({"one": f"{head}{body}\n$$;\n"}) == [in_sql]
    assert problems({"one": f"{HEAD}begin {body} end;\n$$;\n"}) == []


def test_the_procedures_and_their_exceptions() -> None:
    assert spreading.check(procedures.sources()) == []
    assert all(spreading.EXCEPTIONS.values())


def test_what_a_problem_and_an_exception_too_many_say(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"one": f"{HEAD}begin perform from fastpubsub.heads as h; end; $$;"}
    assert problems(sources) == [Problem("one", "topics", "heads")]
    monkeypatch.setattr(spreading, "EXCEPTIONS", {})
    (line,) = spreading.check(sources)
    assert line.startswith("one.sql, heads: a statement reads or writes rows of several topics: bind each table to one")
    assert line.endswith("; or add it to EXCEPTIONS, and why")
    monkeypatch.setattr(spreading, "EXCEPTIONS", {("one", "topics"): "tried", ("one", "lock"): "gone"})
    assert spreading.check(sources) == ["one.sql, lock: nothing needs this exception any more, remove it"]
