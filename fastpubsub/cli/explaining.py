"""`fastpubsub explain`."""

from typing import Annotated

import typer

from fastpubsub.cli.arguments import object_id
from fastpubsub.cli.completing import subscription_ids
from fastpubsub.cli.connection import connected
from fastpubsub.cli.groups import list_all
from fastpubsub.cli.output import AsJson, Output, table, write_text
from fastpubsub.cli.records import single

COLUMNS = ("subscription_id", "state", "detail")
FAILURES = ("failed_at", "delivery_attempt", "cause", "consumer_id", "reason")


def explain(
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="The id of a message.", callback=object_id)],
    subscription: Annotated[
        str | None,
        typer.Argument(
            metavar="SUB",
            help="Show only this subscription.",
            callback=lambda value: value and object_id(value),
            autocompletion=subscription_ids,
        ),
    ] = None,
    as_json: AsJson = None,
) -> None:
    """Show what happened to a message in each subscription of its topic, and why.

    With a subscription, a second table has the deliveries that failed.
    """
    from fastpubsub.client import requests

    output = Output(as_json, *COLUMNS, grows="detail")
    if subscription is None:
        list_all(
            output,
            lambda offset, limit: requests.get_message(message, offset=offset, limit=limit),
            limit=None,
            offset=0,
            member="subscriptions",
        )
        return
    with connected() as client:
        explanation = client.send(single(requests.explain(subscription, message)))
    output.rows([explanation])
    failures = explanation.fields.get("failures")
    if failures and not output.as_json:
        write_text("".join(f"{line}\n" for line in ["", *table(FAILURES, failures, output.width)]))
