"""`fastpubsub status`: the whole server at one look, what is wrong first."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpubsub.cli import subscriptions, topics
from fastpubsub.cli.colors import styled
from fastpubsub.cli.connection import address, connected
from fastpubsub.cli.exits import FOUND_SOMETHING, counted, printable
from fastpubsub.cli.output import AsJson, Output, table, write_text
from fastpubsub.cli.records import Record, checked, several
from fastpubsub.cli.tables import cropped, rounded

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client
    from fastpubsub.client.requests import Request
    from fastpubsub.models import Overview

SHOWN = 10
"""Rows of each table; the other commands show them all."""

FINDINGS = ("what", "subscription_id", "topic_id", "since", "detail")
COUNTS = {"ahead": "ahead", "leased": "leased", "waiting": "waiting", "dlq": "dead"}
RATES = ("published", "delivered", "acked", "nacked", "rejected", "expired", "dead_lettered", "filtered")

Check = Annotated[bool, typer.Option("--check", help=f"Exit with {FOUND_SOMETHING} if something needs attention.")]


def status(check: Check = False, as_json: AsJson = None) -> None:
    """Show an overview of the server: problems, counts and rates, topics and subscriptions."""
    output = Output(as_json)
    with connected() as client:
        record, overview = client.send(looked_at())
        if output.as_json:
            output.one(record)
        else:
            lines = [*summary(overview, output.width), *_lists(client, overview, output.width)]
            write_text("".join(f"{line}\n" for line in lines))
    if check and overview.findings:
        raise SystemExit(FOUND_SOMETHING)


def looked_at() -> "Request[tuple[Record, Overview]]":
    from fastpubsub.client import requests

    return checked(requests.overview())


def summary(overview: "Overview", width: int, most: int = SHOWN) -> list[str]:
    """What is wrong first, then the sums."""
    from textwrap import wrap

    access = "on" if overview.is_authentication_on else "off"
    estimated = "; ahead is an estimate, as filters have still to judge" if overview.ahead_is_estimated else ""
    rates = {} if overview.rates is None else overview.rates.model_dump()
    lines = [
        f"topics {overview.topics:,}  subscriptions {overview.subscriptions:,}  published {overview.published:,}",
        "  ".join(f"{name} {getattr(overview, one):,}" for one, name in COUNTS.items()) + estimated,
        "a second: " + ", ".join(f"{one.replace('_', ' ')} {rounded(rates.get(one, 0.0))}" for one in RATES),
    ]
    title = f"{printable(address())}  version {printable(overview.version)}  authentication {access}"
    if overview.missing_topics:
        lines.append(
            f"a node of PostgreSQL does not answer, so topics are missing: {', '.join(overview.missing_topics)}"
        )
    return [
        styled(cropped(title, width).rstrip(), "bold"),
        "",
        *_findings(overview, width, most),
        "",
        *(part for line in lines for part in wrap(line, width)),
    ]


def _findings(overview: "Overview", width: int, most: int) -> list[str]:
    if not overview.findings:
        return [styled("Nothing is wrong.", "green")]
    rows = [one.model_dump(mode="json") | {"what": one.kind.replace("_", " ")} for one in overview.findings[:most]]
    more = [f"… and {len(overview.findings) - most} more"] if len(overview.findings) > most else []
    title = f"{counted(len(overview.findings), 'thing')} to look at:"
    return [styled(title, "yellow"), *table(FINDINGS, rows, width), *more]


def _lists(client: "Client", overview: "Overview", width: int) -> list[str]:
    from fastpubsub.client import requests

    lines = []
    for name, columns, request, total in (
        ("topic", topics.STATS, requests.list_topics(include_metrics=True, limit=SHOWN), overview.topics),
        (
            "subscription",
            subscriptions.STATS,
            requests.list_subscriptions(include_metrics=True, limit=SHOWN),
            overview.subscriptions,
        ),
    ):
        if rows := shown(client, request):
            lines += ["", *table_of(name, columns, rows, width)]
            more = total - len(rows)
            lines += [f"… and {more:,} more: `fastpubsub {name}s list --stats`"] if more > 0 else []
    return lines


def table_of(kind: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """Each id under the title of its kind."""
    named = [{**row, f"{kind}_id": row.get("id")} for row in rows]
    return table((f"{kind}_id", *columns[1:]), named, width)


def shown(client: "Client", request: "Request[Any]") -> list[dict[str, Any]]:
    """Nothing of what this client may not read."""
    from fastpubsub.client.errors import PermissionDenied

    try:
        return [record.fields for record in client.send(several(request))]
    except PermissionDenied:
        return []
