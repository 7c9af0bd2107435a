"""Output for programs other than lines of JSON."""

import csv
import io
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from fastpubsub.cli.exits import printable
from fastpubsub.cli.records import Number
from fastpubsub.cli.tables import json_of, member

_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")


class Dumper(yaml.SafeDumper):
    """Numbers are written as they are."""


def _number(dumper: yaml.SafeDumper, number: Number) -> yaml.ScalarNode:
    kind = "int" if number.lstrip("-").isdecimal() else "float"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{kind}", number)


Dumper.add_representer(Number, _number)


class Loader(yaml.SafeLoader):
    """Keeps numbers as they are written, and refuses a name that comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(name, deep=True) for name, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {twice[0]!r} comes twice")
        return super().construct_mapping(node, deep=True)


def _exact_number(loader: Loader, node: yaml.ScalarNode) -> Any:
    if _JSON_NUMBER.fullmatch(node.value):
        return Number(node.value)
    kind = loader.construct_yaml_int if node.tag.endswith("int") else loader.construct_yaml_float
    return Number(repr(kind(node)))


for _kind in ("int", "float"):
    Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _exact_number)


def yaml_documents(records: Iterable[dict[str, Any]]) -> str:
    """In ASCII, so nothing of it steers a terminal."""
    return "".join("---\n" + yaml.dump(one, Dumper=Dumper, sort_keys=False) for one in records)


def csv_lines(records: Sequence[dict[str, Any]], columns: Sequence[str], *, with_titles: bool) -> str:
    """With the columns of the table, or all fields of one record."""
    names = list(columns) or [name for one in records[:1] for name in one]
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    if with_titles:
        writer.writerow(names)
    writer.writerows([_cell(member(one, name)) for name in names] for one in records)
    return written.getvalue()


def ids(records: Iterable[dict[str, Any]]) -> str:
    return "".join(f"{printable(str(one.get('id') or next(iter(one.values()), '')))}\n" for one in records)


def _cell(value: Any) -> str:
    """A spreadsheet takes what begins with these for a formula."""
    text = "" if value is None else value if isinstance(value, str) else json_of(value)
    text = printable(text) if sys.stdout.isatty() else text
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not isinstance(value, Number) else text
