"""What the guide takes from the code itself: the help of the commands and the public names of the modules."""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import fastapi  # noqa: F401 - its models cannot be made while autodoc imports modules in its own way
import typer.main
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WIDTH = 100


class Commands(SphinxDirective):
    """A section for each command, with its help."""

    def run(self) -> list[nodes.Node]:
        from fastpubsub.main import app

        return [node for path, text in helps(typer.main.get_command(app)) for node in self._section(path, text)]

    def _section(self, path: str, text: str) -> list[nodes.Node]:
        section = nodes.section(ids=[nodes.make_id(path)])
        section += [nodes.title("", path), nodes.literal_block("", text, language="text")]
        return [section]


def helps(command: Any, path: str = "fastpubsub", parent: Any = None) -> Iterator[tuple[str, str]]:
    """Hidden commands are other spellings."""
    with command.make_context(
        path.rpartition(" ")[2], [], parent, resilient_parsing=True, max_content_width=WIDTH
    ) as context:
        yield path, command.get_help(context)
        for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
            inner = command.get_command(context, name)
            if not inner.hidden:
                yield from helps(inner, f"{path} {name}", context)


class Public(SphinxDirective):
    """Every public name of a module, by autodoc."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (module,) = self.arguments
        text = "\n".join(f".. {kind(value)}:: {module}.{name}\n" for name, value in public(module))
        return self.parse_text_to_nodes(f"```{{eval-rst}}\n{text}```\n")


def public(module: str) -> list[tuple[str, Any]]:
    """What the module exports, or what it defines."""
    found = vars(importlib.import_module(module))
    names = found.get("__all__") or [
        name
        for name, value in found.items()
        if getattr(value, "__module__", None) == module and not name.startswith("_")
    ]
    return [(name, found[name]) for name in names]


def kind(value: Any) -> str:
    if not isinstance(value, type):
        return "autofunction" if inspect.isfunction(value) else "autodata"
    return "autoexception" if issubclass(value, BaseException) else "autoclass"


def setup(app: Sphinx) -> None:
    app.add_directive("commands", Commands)
    app.add_directive("public", Public)
