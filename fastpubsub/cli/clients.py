"""`fastpubsub clients`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fastpubsub.cli.arguments import ClientId, Limit, Offset, Yes, object_ids, text
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import note, printable
from fastpubsub.cli.groups import confirm, delete_each, group, list_all, show
from fastpubsub.cli.output import AsJson, Output, write_text
from fastpubsub.cli.records import single

if TYPE_CHECKING:
    from fastpubsub.client.requests import Request

COLUMNS = ("id", "name", "is_active", "created_at", "scopes")

app = group("Create, list, show, change and delete clients of the API.")

Active = Annotated[
    bool | None, typer.Option("--active/--inactive", help="Whether the client may get tokens.", show_default=False)
]


@app.talking("list")
def list_clients(limit: Limit = None, offset: Offset = 0, as_json: AsJson = None) -> None:
    """List clients, ordered by id."""
    from fastpubsub.client import requests

    output = Output(as_json, *COLUMNS, grows="scopes")
    list_all(output, lambda offset, limit: requests.list_clients(offset=offset, limit=limit), limit, offset)


@app.talking("show")
def show_client(client: ClientId, as_json: AsJson = None) -> None:
    """Show a client. Its secret cannot be shown again."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.get_client(client))


@app.talking("create")
def create_client(
    name: Annotated[str, typer.Argument(help="A name for people to read.", callback=text)],
    scopes: Annotated[str, typer.Argument(help="Scopes, separated by spaces.", callback=text)],
    active: Active = None,
    as_json: AsJson = None,
) -> None:
    """Create a client, and print its secret, which is shown only once."""
    from fastpubsub.client import requests

    _print_secret(requests.create_client(name, scopes, is_active=active is not False), as_json)


@app.talking("update")
def update_client(
    client: ClientId,
    name: Annotated[str | None, typer.Option(help="A name for people to read.", callback=text)] = None,
    scopes: Annotated[str | None, typer.Option(help="Scopes, separated by spaces.", callback=text)] = None,
    active: Active = None,
    as_json: AsJson = None,
) -> None:
    """Change the given settings and show the client. This ends all of its tokens."""
    from fastpubsub.client import requests

    if name is None and scopes is None and active is None:
        raise typer.BadParameter("say what to change: --name, --scopes, --active or --inactive")
    output = Output(as_json)
    with connected() as bus:
        if name is None or scopes is None:
            now = bus.get_client(client)
            name, scopes = now.name if name is None else name, now.scopes if scopes is None else scopes
        output.one(bus.send(single(requests.update_client(client, name=name, scopes=scopes, is_active=active))))


@app.talking("rotate-secret")
def rotate_client_secret(
    client: ClientId,
    old_secret_seconds: Annotated[
        int | None,
        typer.Option(
            help="How long the previous secret stays valid; a day by default. 0 ends it, and all tokens, at once.",
            min=0,
            max=2592000,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = None,
) -> None:
    """Give a client a new secret, and print it. It is shown only once."""
    from fastpubsub.client import requests

    given = {} if old_secret_seconds is None else {"old_secret_seconds": old_secret_seconds}
    _print_secret(requests.rotate_client_secret(client, **given), as_json)


@app.talking("revoke-secret")
def revoke_client_secret(
    client: ClientId,
    which: Annotated[Literal["old", "new"], typer.Argument(help="old is the previous secret, new is the latest one.")],
    yes: Yes = False,
) -> None:
    """End one of the two secrets of a client early. This ends all of its tokens."""
    from fastpubsub.client import requests

    confirm(f"End the {which} secret of {printable(client)} and all tokens?", yes)
    with connected() as bus:
        bus.send(requests.revoke_client_secret(client, which))
        note(f"ended the {which} secret of {client}")


def _print_secret(request: "Request[Any]", as_json: bool | None) -> None:
    output = Output(as_json)
    with connected() as bus:
        record = bus.send(single(request))
        if output.as_json:
            output.one(record)
        else:
            write_text(f"client_id={record.fields['id']}\nclient_secret={record.fields['secret']}\n")
        note("save the secret now: it is not shown again")


@app.talking("delete")
def delete_clients(
    clients: Annotated[list[str], typer.Argument(metavar="CLIENT", callback=object_ids)], yes: Yes = False
) -> None:
    """Delete clients. This ends all of their tokens."""
    from fastpubsub.client import requests

    delete_each("client", clients, " and end all tokens", requests.delete_client, yes)
