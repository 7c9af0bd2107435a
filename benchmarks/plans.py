"""`python -m benchmarks.plans postgresql://…` writes the plans of the hot procedures into docs/plans.md.

On a PostgreSQL that has the extension auto_explain, as the packages of distributions do and the embedded one does not,
as a superuser. In a database of its own with 100,000 messages, after enough calls that plans are cached.
"""

import re
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from benchmarks.payloads import payload
from fastpubsub.database import migrations

PAGE = Path(__file__).parent.parent / "docs" / "plans.md"
BEGIN = "<!-- plans: written by python -m benchmarks.plans -->"
END = "<!-- end of plans -->"
MESSAGES = 100_000
CALLS_BEFORE = 7
STATEMENT_CHARACTERS = 100

EXPLAIN = """
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_nested_statements = on;
set auto_explain.log_analyze = on;
set auto_explain.log_timing = off;
set auto_explain.log_buffers = on;
set client_min_messages = log
"""
TABLES = re.compile(r" on (?:heads|cursors|messages|claims|leases|retries)\b")
ESTIMATES = re.compile(r"  \(cost=\S+ rows=\d+ width=\d+\)")

Connection = psycopg.Connection[tuple[Any, ...]]
Parameters = tuple[Any, ...]


def of_a_claim(connection: Connection) -> Parameters:
    """The run of positions, and its token."""
    query = "select positions, token from fastpubsub.claim_messages_2(1, 1, '{100}', '{c}', 1000000)"
    ((positions, token),) = connection.execute(query).fetchall()
    return [positions[0]], [token], [len(positions)]


def of_part_of_a_claim(connection: Connection) -> Parameters:
    (first,), tokens, _ = of_a_claim(connection)
    return [first + 10], tokens, [5]


def of_nothing(_: Connection) -> Parameters:
    return ()


ONE = f"(array['{payload(0)}']::json[])"
SETTLE = "1, 1, %s::bigint[], %s::bigint[], array[null]::timestamptz[]"
EXCHANGE = SETTLE.replace("1, 1,", "1, 1, '{1,0,0,0,0}',")
CALLS: dict[str, tuple[str, Callable[[Connection], Parameters]]] = {
    "publish 100": (f"publish_messages(1, array_fill({ONE}[1], array[100]))", of_nothing),
    "publish one to each of two topics": (
        f"publish_to_topics('{{1,2}}', '{{0,0}}', '{{0,1}}', '{{1,2}}', {ONE} || {ONE})",
        of_nothing,
    ),
    "claim 100": ("claim_messages_2(1, 1, '{100}', '{c}', 1000000)", of_nothing),
    "claim where nothing is": ("claim_messages_2(3, 2, '{100}', '{c}', 1000000)", of_nothing),
    "ack the 100 of a claim": (f"ack_messages_2({SETTLE}, %s)", of_a_claim),
    "ack 5 of a claim": (f"ack_messages_2({SETTLE}, %s)", of_part_of_a_claim),
    "nack the 100 of a claim": (f"nack_messages({SETTLE}, array[0], %s)", of_a_claim),
    "ack the 100 of a claim and claim 100": (
        f"settle_and_claim_2({EXCHANGE}, array[null]::integer[], array[null]::text[], %s, '{{100}}', '{{c}}', 1000000)",
        of_a_claim,
    ),
}


class Reports:
    """What PostgreSQL says of each statement inside of a call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._texts: list[str] = []
        connection.add_notice_handler(lambda notice: self._texts.append(notice.message_primary or ""))

    def of(self, call: str, prepare: Callable[[Connection], Parameters]) -> Iterator[str]:
        statement = f"select * from fastpubsub.{call}"  # noqa: S608 - of this file
        for _ in range(CALLS_BEFORE):
            self._connection.execute(statement, prepare(self._connection))
        parameters = prepare(self._connection)
        self._texts.clear()
        with explaining(self._connection):
            self._connection.execute(statement, parameters)
        return (short(text) for text in self._texts if TABLES.search(text))


@contextmanager
def explaining(connection: Connection) -> Iterator[None]:
    connection.execute(EXPLAIN)
    yield
    connection.execute("set auto_explain.log_min_duration = -1; set client_min_messages = notice")


def short(text: str) -> str:
    """The statement in a line of its own, and its plan without estimates, which are wrong for queues."""
    lines = text.partition("Query Text: ")[2].split("\n")
    start = next(number for number, line in enumerate(lines) if ESTIMATES.search(line))
    statement = " ".join(" ".join(lines[:start]).split())
    if len(statement) > STATEMENT_CHARACTERS:
        statement = f"{statement[:STATEMENT_CHARACTERS]}…"
    plan = [
        f"    {ESTIMATES.sub('', line)}" for line in lines[start:] if "Buffers" not in line or "Buffers" in line[:12]
    ]
    return "\n".join([statement, *plan])


@contextmanager
def filled(url: str) -> Iterator[Connection]:
    """100,000 messages, a subscription in the middle of them, and topics that are empty."""
    name = f"fastpubsub_plans_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            own = make_url(url).set(database=name).render_as_string(hide_password=False)
            migrations.upgrade(own)
            with psycopg.connect(own, autocommit=True) as connection:
                fill(connection)
                yield connection
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def fill(connection: Connection) -> None:
    connection.execute("select fastpubsub.create_topic(t) from unnest('{busy,other,quiet}'::text[]) as t")
    subscribe = "select fastpubsub.create_subscription(%s, %s, null, 60, 5, 0, 300)"
    connection.execute(subscribe, ["consumed", "busy"])
    connection.execute(subscribe, ["idle", "quiet"])
    for _ in range(MESSAGES // 1000):
        connection.execute("select fastpubsub.publish_messages(1, array_fill(%s::json, array[1000]))", [payload(0)])
    for _ in range(MESSAGES // 2 // 100):
        ack = f"select fastpubsub.ack_messages_2({SETTLE}, %s)"
        connection.execute(ack, of_a_claim(connection))


def main() -> None:
    sections = []
    with filled(sys.argv[1]) as connection:
        ((version,),) = connection.execute("show server_version").fetchall()
        for title, (call, prepare) in CALLS.items():
            plans = "\n\n".join(Reports(connection).of(call, prepare))
            sections.append(f"**{title[0].upper()}{title[1:]}**\n\n```\n{plans}\n```\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n".join(sections)
    PAGE.write_text(f"{before}{BEGIN}\n\nPostgreSQL {str(version).split()[0]}.\n\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
