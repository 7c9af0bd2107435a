"""What all commands have that talk to a server: the format of their output, and where the server is."""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Annotated, Any

import typer
from typer.models import ArgumentInfo, OptionInfo

from fastpubsub.cli import output, places
from fastpubsub.cli.arguments import text
from fastpubsub.cli.completing import context_names
from fastpubsub.cli.helping import Command

PRINTS = "as_json"
"""The parameter of commands that print what a server answers."""

Format = Annotated[
    output.Format | None,
    typer.Option(
        "--output", "-o", help="Print it in this format; wide is a table that is not cropped.", show_default=False
    ),
]
Url = Annotated[
    str | None, typer.Option(help="The address of the server, instead of FASTPUBSUB_URL.", show_default=False)
]
ClientId = Annotated[
    str | None,
    typer.Option(help="The id of your client, instead of FASTPUBSUB_CLIENT_ID.", metavar="ID", show_default=False),
]
ContextName = Annotated[
    str | None,
    typer.Option(
        "--context",
        help="Use the server and the client of this context.",
        metavar="NAME",
        autocompletion=context_names,
        show_default=False,
    ),
]
# Checked by the command: typer would look at the callback again for each of them, which one waits for.
PLACE = {"url": Url, "client_id": ClientId, "context": ContextName}

WRITTEN: dict[str, str] = {}
"""How the running command names what it sends, by the name of the member: `--filter`, `TOPIC`."""


class Commands(typer.Typer):
    """The whole, or a group; its commands get these options."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        return super().command(name, **{"cls": Command, **options})

    def talking(self, name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Registers a command that talks to a server."""
        return self._with(name, PLACE, options)

    def local(self, name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Registers a command that needs no server."""
        return self._with(name, {}, options)

    def _with(
        self, name: str, more: dict[str, Any], options: dict[str, Any]
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        def register(function: Callable[..., None]) -> Callable[..., None]:
            self.command(name, **options)(_extended(function, more))
            return function

        return register


def _extended(function: Callable[..., None], more: dict[str, Any]) -> Callable[..., None]:
    own = {name: one.annotation for name, one in inspect.signature(function).parameters.items()}
    is_talking = bool(more)
    more = more | ({"output_format": Format} if PRINTS in own else {})

    @wraps(function)
    def run(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in more}
        if is_talking:
            places.choose(*(text(chosen[name]) for name in PLACE))
        output.chosen = chosen.get("output_format")
        WRITTEN.update(_written(own))
        function(**given)

    return with_options(function, run, more)


def with_options(
    function: Callable[..., None], run: Callable[..., None], options: dict[str, Any], instead: str | None = None
) -> Callable[..., None]:
    """`run` takes what `function` does and these options, which may stand in the place of one parameter."""
    parameters = inspect.signature(function).parameters
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in options.items()]
    kept = {name: one for name, one in parameters.items() if name != instead}
    place = list(parameters).index(instead) if instead else len(kept)
    ordered = [*list(kept.values())[:place], *added, *list(kept.values())[place:]]
    ordered = [one.replace(kind=keyword) for one in ordered]
    run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in ordered} | {"return": None}
    return run


def _written(own: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The first argument is the id of what is made or changed; a schedule comes after its topic."""
    arguments = []
    for name, hint in own.items():
        for about in getattr(hint, "__metadata__", ()):
            if isinstance(about, OptionInfo):
                names = [one for one in map(str, (about.default, *(about.param_decls or ()))) if one.startswith("--")]
                yield name.rstrip("_"), names[0] if names else f"--{name.rstrip('_').replace('_', '-')}"
            elif isinstance(about, ArgumentInfo):
                arguments.append(about.metavar or name.upper())
                yield f"{name}_id", arguments[-1]
    if arguments:
        yield "id", arguments["schedule" in own]


def in_words_of_options(detail: str) -> str:
    """Names the option that a refusal is about, where the server names the member."""
    where, colon, what = detail.partition(": ")
    source, _, path = where.partition(".")
    member, _, rest = path.partition(".")
    if not colon or source not in ("body", "query", "path") or member not in WRITTEN:
        return detail
    return f"{WRITTEN[member]}: {what}" if not rest else f"{WRITTEN[member]}: at {rest}: {what}"
