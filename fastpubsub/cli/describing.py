"""`fastpubsub asyncapi`: an application's topics and subscribers, for the tools of AsyncAPI."""

import json
from typing import Annotated

import typer

from fastpubsub.cli.exits import WRONG_USAGE, fail, printable
from fastpubsub.cli.output import write_text


def asyncapi(
    target: Annotated[
        str,
        typer.Argument(metavar="MODULE:NAME", help="The module and name of a worker, bus or router, such as app:bus."),
    ],
    title: Annotated[
        str | None, typer.Option(help="The name of the application.", show_default="that of the module")
    ] = None,
    app_version: Annotated[str, typer.Option(help="The version of the application.")] = "1.0.0",
    server: Annotated[str | None, typer.Option(help="The URL of fastpubsub, if the document is to have it.")] = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML instead of JSON.")] = False,
    as_html: Annotated[bool, typer.Option("--html", help="Print a page for a browser instead of JSON.")] = False,
) -> None:
    """Print the topics and subscribers of an application as an AsyncAPI 3 document. Asks no server."""
    from fastpubsub.cli.formats import yaml_documents
    from fastpubsub.client import asyncapi as documents
    from fastpubsub.client.asyncapi_page import page
    from fastpubsub.client.router import Router
    from fastpubsub.client.runner import TargetError, load_any

    if as_yaml and as_html:
        fail("--yaml and --html exclude each other", WRONG_USAGE)
    try:
        router = load_any(target, Router, "fastpubsub asyncapi app:bus")
        document = documents.asyncapi(
            router, title=title or target.partition(":")[0], version=app_version, server=server
        )
    except (TargetError, TypeError, ValueError) as error:
        fail(printable(str(error)), WRONG_USAGE)
    if as_yaml:
        write_text(yaml_documents([document]).removeprefix("---\n"))
    elif as_html:
        write_text(page(document))
    else:
        write_text(f"{json.dumps(document, indent=2)}\n")
