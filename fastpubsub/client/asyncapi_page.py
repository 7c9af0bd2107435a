"""An AsyncAPI document as a page for people, in one file without scripts.

The renderers of AsyncAPI itself are 2.6 MB of JavaScript, several times as much as the whole client.
"""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastpubsub.client.asyncapi import Document

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d5d9de, #3b4148); --soft: light-dark(#f4f5f7, #1f2429); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
section { border: 1px solid var(--line); border-radius: .5rem; padding: 0 1rem 1rem; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); }
code, pre { background: var(--soft); border-radius: .25rem; padding: .1rem .3rem; }
pre { overflow-x: auto; padding: .75rem; }
p { white-space: pre-line; }
"""

SCHEMAS = "#/components/schemas/"
SAID = frozenset({"$ref", "allOf", "anyOf", "const", "enum", "items", "oneOf", "type"})
"""What the type of a schema says already; the rest is told beside it."""
STRUCTURE = frozenset({"additionalItems", "additionalProperties", "description", "properties", "required", "title"})
COMBINED = {"anyOf": " or ", "oneOf": " or ", "allOf": " and "}


def page(document: Document) -> str:
    """Returns the HTML of a document that `asyncapi` made: its topics, who receives and sends, and the types."""
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    parts = [*_channels(document), *_types(document.get("components", {}).get("schemas", {}))]
    raw = escape(json.dumps(document, indent=2))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
<h1>{title}</h1>
{"".join(_servers(document.get("servers", {})))}
{"".join(parts)}
<details><summary>The AsyncAPI document</summary><pre>{raw}</pre></details>
</html>
"""


def _servers(servers: Mapping[str, Any]) -> Iterator[str]:
    for one in servers.values():
        url = f"{one['protocol']}://{one['host']}{one.get('pathname', '')}"
        yield f"<p>Server: {_code(url)}</p>"


def _channels(document: Document) -> Iterator[str]:
    for name, channel in document["channels"].items():
        what = "Topic" if channel["address"] is not None else "The topic of subscription"
        yield f'<section id="{escape(f"topic-{name}")}"><h2>{what} {_code(name)}</h2>'
        for id_, operation in document["operations"].items():
            if operation["channel"]["$ref"] == f"#/channels/{_escaped(name)}":
                yield _operation(id_, operation)
        for kind, message in channel["messages"].items():
            payload = message["payload"]
            yield f"<h3>Message {_code(kind)}</h3>{_described(payload.get('schema', payload))}"
        yield "</section>"


def _operation(name: str, operation: Document) -> str:
    settings = dict(operation.get("x-fastpubsub-subscription", {}))
    subscription = settings.pop("id", None)
    does = "Published" if subscription is None else f"Received by subscription {_code(subscription)}"
    by = f" by {_code(name.rpartition('.')[0])}" if subscription is None and not name.startswith("publish.") else ""
    text = f"<h3>{does}{by}</h3>{_paragraph(operation)}"
    rows = "".join(f"<tr><td>{_code(key)}<td>{_code(json.dumps(value))}" for key, value in settings.items())
    return text + (f"<table><tr><th>Setting<th>Value{rows}</table>" if rows else "")


def _types(schemas: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in schemas.items():
        yield f'<section id="{escape(f"type-{name}")}"><h2>Type {_code(name)}</h2>{_described(schema)}</section>'


def _described(schema: Any) -> str:
    """An object as a table of its members; everything else in a line."""
    if not isinstance(schema, dict) or "properties" not in schema:
        return f"<p>{_type(schema)} {_details(schema)}</p>{_paragraph(schema)}"
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td>{_code(name)}<td>{_type(member)}<td>{'yes' if name in required else 'no'}"
        f"<td>{_details(member)}{_paragraph(member)}"
        for name, member in schema["properties"].items()
    )
    return f"{_paragraph(schema)}<table><tr><th>Member<th>Type<th>Required<th>{rows}</table>"


def _type(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "nothing" if schema is False else "anything"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(SCHEMAS)
        return f'<a href="#{escape(f"type-{name}")}">{escape(name)}</a>'
    for key, word in COMBINED.items():
        if key in schema:
            return word.join(_type(one) for one in schema[key])
    if "const" in schema or "enum" in schema:
        return " or ".join(_code(json.dumps(one)) for one in schema.get("enum", [schema.get("const")]))
    kinds = schema.get("type", "anything")
    return " or ".join(_of(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _of(kind: str, schema: Document) -> str:
    inside = {"array": "items", "object": "additionalProperties"}.get(kind)
    if inside is None or schema.get(inside) in (None, True, False):
        return escape(kind)
    items = schema[inside]
    several = ", ".join(_type(one) for one in items) if isinstance(items, list) else _type(items)
    return f"{kind} of ({several})"


def _details(schema: Any) -> str:
    told = {key: value for key, value in schema.items() if key not in SAID | STRUCTURE} if _is_object(schema) else {}
    return " ".join(_code(f"{key}: {json.dumps(value)}") for key, value in told.items())


def _paragraph(described: Any) -> str:
    text = described.get("description") if _is_object(described) else None
    return f"<p>{escape(text)}</p>" if text else ""


def _is_object(schema: Any) -> bool:
    return isinstance(schema, dict)


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
