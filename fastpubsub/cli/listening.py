"""`fastpubsub listen`: messages of a subscription go to the machine of a developer, who sees what it answers."""

from typing import Annotated

import typer

from fastpubsub.cli.arguments import SubscriptionId, text
from fastpubsub.cli.connection import connected, explained
from fastpubsub.cli.exits import FAILED, fail, note
from fastpubsub.cli.interrupts import Interrupts
from fastpubsub.cli.messages import told_to_end
from fastpubsub.cli.output import AsJson, Output
from fastpubsub.cli.pushing import PushFormat

COLUMNS = ("at", "status", "milliseconds", "id", "said")
SHORTEST_KEY, LONGEST_KEY = 24, 64
"""Bytes, as Standard Webhooks has it."""


ForwardTo = Annotated[
    str,
    typer.Option(
        "--forward-to", metavar="URL", help="The address to post messages to.", callback=text, show_default=False
    ),
]
Secret = Annotated[
    str | None,
    typer.Option(
        metavar="WHSEC",
        help="The secret that signs the requests; a new one by default.",
        callback=text,
        show_default=False,
    ),
]


def listen(
    subscription: SubscriptionId,
    forward_to: ForwardTo,
    form: Annotated[PushFormat, typer.Option("--format", help="The format of the requests.")] = PushFormat.standard,
    secret: Secret = None,
    timeout_seconds: Annotated[float, typer.Option(help="How long an answer may take.", min=0.1, max=3600)] = 30,
    as_json: AsJson = None,
) -> None:
    """Post messages to your own machine, signed as push does, until Ctrl-C. An answer of 2xx acknowledges."""
    from fastpubsub.cli.forwarding import Forwarding
    from fastpubsub.cli.posting import Poster
    from fastpubsub.client.errors import AlreadyExists
    from fastpubsub.push.signing import new_secret

    chosen = secret or new_secret()
    output = Output(as_json, *COLUMNS, grows="said")
    check_address(forward_to)
    check_secret(chosen)
    with Poster(forward_to, form.value, chosen, timeout_seconds) as poster, connected() as client:
        if secret is None:
            note(f"signed with {chosen}")
        with Interrupts().installed() as interrupts, told_to_end():
            if not poster.is_welcome():
                note(
                    "fastpubsub: the endpoint did not answer OPTIONS with WebHook-Allowed-Origin: a server would push "
                    "nothing there; forwarding nevertheless"
                )
            try:
                Forwarding(client, subscription, poster, output, interrupts).run()
            except AlreadyExists as error:
                fail(f"{explained(error)}, or listen to another subscription of its topic", FAILED)


def check_address(url: str) -> None:
    """Refuses what a server refuses, in its words."""
    from pydantic import ValidationError

    from fastpubsub.models import NewPush, sentence
    from fastpubsub.push.requests import Place

    try:
        Place(NewPush(endpoint=url).endpoint)
    except ValidationError as error:
        raise typer.BadParameter(f"--forward-to: {sentence(error.errors()[0])}") from None
    except ValueError:
        raise typer.BadParameter("--forward-to has a port or an address that does not exist") from None


def check_secret(secret: str) -> None:
    from base64 import b64decode

    from fastpubsub.push.signing import PREFIX

    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(PREFIX) or not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise typer.BadParameter(f"--secret is {PREFIX} and {SHORTEST_KEY} to {LONGEST_KEY} bytes in base64")
