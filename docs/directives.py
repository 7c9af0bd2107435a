"""What the guide takes from the code: the help of the commands, the settings, and the public names of the modules."""

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

import fastapi  # noqa: F401 - its models cannot be made while autodoc imports modules in its own way
import typer.main
from docutils import nodes
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock
from sphinx.util.docutils import SphinxDirective

from fastpubsub.config import PREFIX, Settings, bounds

NOT_THERE = ["taskiq"]
"""What the guide is built without, although the names of its module are in it."""

WIDTH = 100
UNITS = ("seconds", "minutes", "bytes")
"""A name ends with it."""


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


class SettingsTable(SphinxDirective):
    """A row for each setting."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(settings_in_markdown())


def settings_in_markdown() -> str:
    rows = "\n".join(f"| {' | '.join(row)} |" for row in settings())
    return f"| Variable | Default | Values | |\n|---|---|---|---|\n{rows}\n"


def settings() -> list[tuple[str, str, str, str]]:
    """The name, default, values and description of each, in Markdown."""
    described = descriptions()
    return [
        (f"`{PREFIX}{name.upper()}`", _default(field), _values(name, field), described[name])
        for name, field in Settings.model_fields.items()
    ]


def descriptions() -> dict[str, str]:
    """Each in one line."""
    (made,) = (node for node in ast.walk(ast.parse(inspect.getsource(Settings))) if isinstance(node, ast.ClassDef))
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(made.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _default(field: FieldInfo) -> str:
    if field.default in (None, ""):
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _values(name: str, field: FieldInfo) -> str:
    if field.annotation is bool:
        return "`true`, `false`"
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    if field.annotation not in (int, float):
        return "text"
    unit = name.rpartition("_")[2]
    return bounds(field).strip() + (f" {unit}" if unit in UNITS else "")


class Public(SphinxDirective):
    """Every public name of a module, by autodoc."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (module,) = self.arguments
        text = "\n".join(f".. {kind(value)}:: {module}.{name}\n" for name, value in public(module))
        return self.parse_text_to_nodes(f"```{{eval-rst}}\n{text}```\n")


def public(module: str) -> list[tuple[str, Any]]:
    """What the module exports, or what it defines."""
    with mock(NOT_THERE):
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


def in_markdown(page: str) -> str:
    """Writes what the directives of a page take from the code into it, for those who read no HTML."""
    return DIRECTIVE.sub(lambda found: WRITERS[found[1]](found[2]), page)


def _commands_in_markdown(_argument: str | None) -> str:
    from fastpubsub.main import app

    return "\n".join(f"## {path}\n\n```text\n{text}\n```\n" for path, text in helps(typer.main.get_command(app)))


def _public_in_markdown(module: str) -> str:
    return "\n".join(_name_in_markdown(f"{module}.{name}", value) for name, value in public(module))


def _name_in_markdown(path: str, value: Any) -> str:
    members = inspect.getmembers(value, inspect.isfunction) if isinstance(value, type) else []
    methods = [
        (f"{path}.{name}", one) for name, one in members if name[0] != "_" and one.__module__.startswith("fastpubsub.")
    ]
    several = [(path, value), *methods]
    return "\n".join(f"### {name}\n\n`{_signature(one)}`\n\n{inspect.getdoc(one) or ''}\n" for name, one in several)


def _signature(value: Any) -> str:
    try:
        return str(inspect.signature(value))
    except (TypeError, ValueError):  # of a value, and of a class that takes anything
        return repr(value)


WRITERS: dict[str, Callable[[Any], str]] = {
    "commands": _commands_in_markdown,
    "public": _public_in_markdown,
    "settings": lambda _argument: settings_in_markdown(),
}
DIRECTIVE = re.compile(rf"```\{{({'|'.join(WRITERS)})\}}(?: (\S+))?\n```\n")


def setup(app: Sphinx) -> None:
    app.add_directive("commands", Commands)
    app.add_directive("public", Public)
    app.add_directive("settings", SettingsTable)
