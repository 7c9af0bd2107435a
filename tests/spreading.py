"""What keeps a procedure from running where each topic is on one of several nodes: `python -m tests.procedures check`.

There, a statement runs on one node when each table in it is bound to one topic. What is not can be refused, or asks
every node and fails when one of them is down.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from fastpubsub.database import spreading

BY_TOPIC = frozenset(spreading.BY_TOPIC)
"""Tables whose rows are where their topic is."""

ELSEWHERE = frozenset(spreading.AT_COORDINATOR)
SHOWN = frozenset(spreading.SHOWN)

LITERAL_OR_COMMENT = re.compile(r"'[^']*'|--[^\n]*")
TABLE = re.compile(
    r"\b(?P<verb>from|join|update|into|using|,)\s+fastpubsub\.(?P<table>\w+)\b(?!\s*\()(?:\s+as\s+(?P<alias>\w+))?"
)
IN_SQL = re.compile(r"^language sql\b", re.MULTILINE)
CALL = re.compile(r"\bfastpubsub\.(\w+)\s*\(")
LOCK = re.compile(r"\bfor (?:no key )?(?:update|share)\b(?P<skip>(?: of \w+)? skip locked)?")
BEGINNINGS = "perform|return|update|insert|delete|select|with|raise|if|for"
PARTS = re.compile(rf";|\bloop\b|\bbegin\b|\bthen\b(?=\s*(?:{BEGINNINGS}|\w+\s*:=))")
ONE_TOPIC = r"(?:p_topic_key|p_\w+\.topic_key|v_\w+(?:\.\w+)?|\$\d+)\b(?!\s*\[)"
UPDATE_WITH_CLOCK = re.compile(r"^\s*update\b.*(?:\b(?:clock_timestamp|gen_random_uuid)\s*\(|= default\b)", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    procedure: str
    rule: str
    what: str


EVERY_TOPIC = "work and figures over every topic: to be done by each node for its own"
ALONE = "one statement where topics are on one node, which is less work; else one topic after the other"
FOR_EACH_ROW = "reads for each row: to be written out, or called before"
FROM_SEVERAL = "made for several topics at once: to be called for each topic"
SAME_STATEMENT = "found in the same statement, by an index that no statistics can change: to be named by its key there"
ONE_LOCK = "one lock for all nodes: to become one for each topic"

EXCEPTIONS = {
    ("delete_topic", "topics"): "asks which subscriptions name the topic: to be kept beside their names",
    ("empty_purges", "hidden"): "deletes from many tables, the names of which it lists; to be keyed by topic",
    ("empty_purges", "turn"): ONE_LOCK,
    ("finish_outbox", "ctid"): SAME_STATEMENT,
    ("forget_outbox_keys", "ctid"): SAME_STATEMENT,
    ("hold_endpoints", "turn"): ONE_LOCK,
    ("inspect_delayed", "topics"): ALONE,
    ("inspect_leases", "topics"): EVERY_TOPIC,
    ("inspect_schedules", "topics"): EVERY_TOPIC,
    ("list_due_schedules", "topics"): EVERY_TOPIC,
    ("list_due_topics", "topics"): ALONE,
    ("list_endpoints", "topics"): FROM_SEVERAL,
    ("list_expired_leases", "topics"): EVERY_TOPIC,
    ("list_full_subscriptions", "topics"): ALONE,
    ("list_loads_2", "call"): EVERY_TOPIC,
    ("list_loads_2", "topics"): EVERY_TOPIC,
    ("list_ready_subscriptions_2", "call"): FROM_SEVERAL,
    ("list_ready_subscriptions_2", "topics"): FROM_SEVERAL,
    ("list_rhythms", "topics"): ALONE,
    ("list_running_redrives", "topics"): EVERY_TOPIC,
    ("list_subscriptions_4", "topics"): "shows what only the node of a topic has: to be kept beside the name",
    ("list_topics", "topics"): "shows what only the node of a topic has: to be kept beside the name",
    ("list_trimmable", "topics"): EVERY_TOPIC,
    ("lock_job", "turn"): ONE_LOCK,
    ("publish_due_messages", "ctid"): SAME_STATEMENT,
    ("publish_refused_messages", "ctid"): SAME_STATEMENT,
    ("publish_to_topics", "call"): FROM_SEVERAL,
    ("publish_to_topics", "lock"): FROM_SEVERAL,
    ("publish_to_topics", "topics"): FROM_SEVERAL,
    ("purge_refused_messages", "ctid"): SAME_STATEMENT,
    ("refuse_messages", "ctid"): SAME_STATEMENT,
    ("relay_messages_2", "ctid"): SAME_STATEMENT,
    ("release_delayed_messages", "ctid"): SAME_STATEMENT,
    ("run_transaction", "topics"): "one transaction over several topics, as its caller asks",
    ("trim_changes", "ctid"): SAME_STATEMENT,
    ("trim_changes", "turn"): "of no topic: the table stays on one node",
    ("trim_claims", "ctid"): SAME_STATEMENT,
    ("trim_history", "ctid"): SAME_STATEMENT,
    ("trim_history", "turn"): "of no topic: the table stays on one node",
    ("take_settled", "ctid"): SAME_STATEMENT,
    ("trim_push_attempts", "ctid"): SAME_STATEMENT,
    ("trim_refused_messages", "ctid"): SAME_STATEMENT,
}
"""What cannot spread yet, by procedure and rule, with the reason."""


@dataclass(frozen=True, slots=True)
class Reference:
    """`scope`: the statement, or the part of it in parentheses, that names the table."""

    table: str
    alias: str
    scope: str
    is_insert: bool


@dataclass(frozen=True)
class Statement:
    text: str
    is_in_sql: bool = False
    """It is the body of a function in SQL, not in PL/pgSQL."""

    @cached_property
    def references(self) -> list[Reference]:
        return [
            Reference(one["table"], one["alias"] or one["table"], scope(self.text, one.start()), one["verb"] == "into")
            for one in TABLE.finditer(self.text)
        ]

    @cached_property
    def of_topics(self) -> set[str]:
        return {one.table for one in self.references if one.table in BY_TOPIC}

    @cached_property
    def elsewhere(self) -> set[str]:
        return {one.table for one in self.references if one.table in ELSEWHERE}

    @cached_property
    def unbound(self) -> set[str]:
        """Tables whose rows may be of several topics."""
        rows = [one for one in self.references if one.table in BY_TOPIC and not one.is_insert]
        return {one.table for one in rows if not self._is_bound(one)}

    @cached_property
    def lock(self) -> re.Match[str] | None:
        return LOCK.search(self.text)

    def _is_bound(self, one: Reference) -> bool:
        bound: set[str] = set()
        while more := set(self._equal(one, bound)) - bound:
            bound |= more
        return one.alias in bound

    def _equal(self, one: Reference, bound: set[str]) -> Iterator[str]:
        """Aliases whose topic is a given one, or that of an alias whose topic is. That of `one` is named beside it."""
        given = "|".join([ONE_TOPIC, *(rf"{alias}\.topic_key\b" for alias in bound)])
        equal = re.compile(rf"\b(\w+)\.topic_key\s*=\s*(?:{given})|(?:{given})\s*=\s*(\w+)\.topic_key\b")
        yield from ((found[1] or found[2]) for found in equal.finditer(one.scope))
        others = ((found[1] or found[2]) for found in equal.finditer(self.text))
        yield from (alias for alias in others if alias != one.alias)


def scope(text: str, place: int) -> str:
    depth = 0
    for start in range(place, -1, -1):
        depth += {")": 1, "(": -1}.get(text[start], 0)
        if depth < 0:
            break
    else:
        return text
    depth = 0
    for end in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if depth == 0:
            return text[start : end + 1]
    return text[start:]


def statements(name: str, source: str) -> list[Statement]:
    """Of the body of a function, without texts and comments. A topic that it returns is a given one."""
    _, _, body = source.partition("$$")
    plain = LITERAL_OR_COMMENT.sub("''", body.rpartition("$$")[0]).replace(f"{name}.topic_key", "p_topic_key")
    is_in_sql = IN_SQL.search(source) is not None
    return [Statement(part, is_in_sql) for part in PARTS.split(plain) if part.strip()]


def reading(parsed: dict[str, list[Statement]]) -> set[str]:
    """The functions that read rows of topics, by themselves or by what they call."""
    calls = {name: {call for one in parts for call in CALL.findall(one.text)} for name, parts in parsed.items()}
    readers = {name for name, parts in parsed.items() if any(one.of_topics for one in parts)}
    while more := {name for name, called in calls.items() if called & readers} - readers:
        readers |= more
    return readers


def several(one: Statement, _: set[str]) -> set[str]:
    return one.unbound


def locks(one: Statement, _: set[str]) -> set[str]:
    return one.unbound | one.elsewhere if one.lock and one.of_topics else set()


def row_addresses(one: Statement, _: set[str]) -> set[str]:
    return one.of_topics | one.elsewhere if re.search(r"\bctid\b", one.text) else set()


def calls(one: Statement, readers: set[str]) -> set[str]:
    return readers.intersection(CALL.findall(one.text)) if one.of_topics else set()


def skipped(one: Statement, _: set[str]) -> set[str]:
    return one.elsewhere if one.lock and one.lock["skip"] else set()


def hidden(one: Statement, _: set[str]) -> set[str]:
    return {"execute"} if re.search(r"\bexecute\b", one.text) else set()


def clocks(one: Statement, _: set[str]) -> set[str]:
    return one.of_topics | (one.elsewhere & SHOWN) if UPDATE_WITH_CLOCK.search(one.text) else set()


def in_sql(one: Statement, _: set[str]) -> set[str]:
    return one.of_topics if one.is_in_sql else set()


def unlisted(one: Statement, _: set[str]) -> set[str]:
    return {found.table for found in one.references if found.table not in BY_TOPIC | ELSEWHERE}


RULES: dict[str, tuple[Callable[[Statement, set[str]], set[str]], str]] = {
    "topics": (
        several,
        "a statement reads or writes rows of several topics: bind each table to one, as in m.topic_key = p_topic_key",
    ),
    "lock": (
        locks,
        "a statement locks rows of several topics, or also reads a table of names: look the key up before, lock by it",
    ),
    "ctid": (row_addresses, "a row is named by ctid, which may be another row on another node: name it by its key"),
    "call": (calls, "a statement on rows of topics calls a procedure that reads some: call it before, into a variable"),
    "turn": (skipped, "a lock is skipped in a table that is not kept by topic: key it by topic"),
    "hidden": (hidden, "a statement is made while it runs, so nobody can read what it does: write it out"),
    "table": (unlisted, "nothing says where the rows of this table are: add it to BY_TOPIC or ELSEWHERE"),
    "sql": (in_sql, "a function in SQL becomes a part of its caller, and finds no rows: write it in PL/pgSQL"),
    "clock": (clocks, "an update calls the clock for each row: read it into a variable before"),
}


def problems(sources: dict[str, str]) -> list[Problem]:
    """Of the functions by their names."""
    parsed = {name: statements(name, source) for name, source in sources.items()}
    readers = reading(parsed)
    return sorted(
        {
            Problem(name, rule, what)
            for name, parts in parsed.items()
            for one in parts
            for rule, (find, _) in RULES.items()
            for what in find(one, readers)
        }
    )


def check(sources: dict[str, str]) -> list[str]:
    """A sentence for each problem that no exception names, and for each exception that nothing needs."""
    found = problems(sources)
    needed = {(one.procedure, one.rule) for one in found}
    new = [one for one in found if (one.procedure, one.rule) not in EXCEPTIONS]
    old = [key for key in EXCEPTIONS if key not in needed]
    return [
        *(f"{one.procedure}.sql, {one.what}: {RULES[one.rule][1]}; or add it to EXCEPTIONS, and why" for one in new),
        *(f"{name}.sql, {rule}: nothing needs this exception any more, remove it" for name, rule in old),
    ]
