"""`fastpubsub export` and `apply`: topics, subscriptions, schedules and clients in a file, compared with the server."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpubsub.cli.arguments import Json, Yes, body_of
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import FAILED, WRONG_USAGE, counted, fail, note, printable
from fastpubsub.cli.groups import confirm
from fastpubsub.cli.output import AsJson, Output, write_text
from fastpubsub.cli.pushing import MEMBERS, keep_headers, merged, readable
from fastpubsub.cli.records import Number, Record, pages, token_pages
from fastpubsub.cli.tables import json_of
from fastpubsub.removable import REMOVABLE

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client
    from fastpubsub.client.requests import Request

Objects = dict[str, dict[str, Any]]
SETTINGS = {
    "topics": ("retention_seconds", "schema"),
    "subscriptions": (
        *("topic_id", "ordered", "filter", "max_delivery_attempts", "backoff_min_seconds", "backoff_max_seconds"),
        *("ack_deadline_seconds", *REMOVABLE, "on_expired", "on_dead_letter", "on_full", "push"),
    ),
    "schedules": ("cron", "time_zone", "interval_seconds", "payload", "attributes", "ordering_key", "catch_up"),
    "clients": ("scopes", "is_active"),
}
"""The members of a file; the names of clients stand for their ids, and a schedule is named `TOPIC/SCHEDULE`."""

NEEDED = {"topics": (), "subscriptions": ("topic_id",), "schedules": (), "clients": ("scopes",)}
LARGEST_FILE = 64 << 20

TopologyFile = Annotated[
    Path, typer.Option("--file", "-f", help="A file in the format of `export`.", exists=True, dir_okay=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]
Prune = Annotated[bool, typer.Option("--prune", help="Also delete what the sections of the file do not name.")]


@dataclass(frozen=True)
class Change:
    """`request` does it."""

    action: str
    kind: str
    name: str
    changes: str
    request: "Request[Any]"

    @property
    def record(self) -> Record:
        shown = {"action": self.action, "kind": self.kind, "id": self.name, "changes": self.changes}
        return Record(json.dumps(shown).encode())


def export() -> None:
    """Print topics, subscriptions, schedules and clients, without secrets, as YAML for `apply`."""
    from fastpubsub.cli.formats import yaml_documents

    with connected() as client:
        found = {kind: _existing(client, kind) for kind in SETTINGS}
    shown = {
        kind: {name: _exported(kind, name, fields) for name, fields in objects.items() if fields}
        for kind, objects in found.items()
        if objects is not None
    }
    if shared := [name for name, fields in (found["clients"] or {}).items() if not fields]:
        note(f"fastpubsub: left out, as several clients have this name: {', '.join(map(printable, shared))}")
    write_text(yaml_documents([shown]).removeprefix("---\n"))


def apply(
    file: TopologyFile, dry_run: DryRun = False, prune: Prune = False, yes: Yes = False, as_json: AsJson = None
) -> None:
    """Create what a file names, and change the settings that differ. Deletes nothing without --prune."""
    wanted = read(file)
    output = Output(as_json, "action", "kind", "id", "changes", grows="changes")
    with connected() as client:
        changes = list(_changes(client, wanted, prune))
        output.rows([one.record for one in changes])
        if not changes:
            note("nothing to change")
        if dry_run or not changes:
            return
        if deleted := [one.name for one in changes if one.action == "delete"]:
            confirm(f"Delete {', '.join(map(printable, deleted))} with everything in it?", yes)
        for change in changes:
            _tell_secret(change, client.send(change.request))
    note(f"made {counted(len(changes), 'change')}")


def _exported(kind: str, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    shown = {one: fields[one] for one in SETTINGS[kind] if one in fields}
    if push := shown.get("push"):
        if push["header_names"]:
            note(f"fastpubsub: left out, as their values cannot be read: the headers of push of {name}")
        shown["push"] = readable(push)
    return shown


def _tell_secret(change: Change, made: Any) -> None:
    if change.kind == "client" and change.action == "create":
        note(f"client {change.name}: client_id={made.id} client_secret={made.secret} (shown only once)")
    elif change.kind == "subscription" and change.action != "delete" and made.push and made.push.secret:
        note(f"subscription {change.name}: push secret={made.push.secret} (shown only once)")


def read(file: Path) -> dict[str, Objects]:
    """Says what is wrong with it, and exits."""
    import yaml

    from fastpubsub.cli.formats import Loader

    try:
        if file.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE >> 20} MiB")
        found = yaml.load(file.read_text(), Loader=Loader) or {}  # noqa: S506 - as safe as SafeLoader, which it is
        return _checked(found)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        fail(f"{printable(str(file))}: {' '.join(str(error).split())}", WRONG_USAGE)


def _checked(found: Any) -> dict[str, Objects]:
    sections = _mapping(found, "the file", SETTINGS)
    return {kind: dict(_objects(kind, objects)) for kind, objects in sections.items()}


def _objects(kind: str, objects: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, settings in _mapping(objects or {}, kind).items():
        where = f"{kind}: {name}"
        given = _mapping(settings or {}, where, SETTINGS[kind])
        if kind == "schedules" and name.count("/") != 1:
            raise ValueError(f"{where}: the name of a schedule is that of its topic, / and its own")
        for needed in NEEDED[kind]:
            if needed not in given:
                raise ValueError(f"{where}: {needed} is missing")
        if given.get("push") is not None:
            _mapping(given["push"], f"{where}: push", MEMBERS)
        yield name, given


def _mapping(value: Any, where: str, known: Mapping[str, Any] | tuple[str, ...] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a mapping of names")  # noqa: TRY004 - told with the others
    for name in value:
        if not isinstance(name, str) or isinstance(name, Number):
            raise ValueError(f"{where}: {name!r} is not text; quote it")  # noqa: TRY004 - told with the others
        if known is not None and name not in known:
            raise ValueError(f"{where}: {name!r} is unknown; known are {', '.join(known)}")
    return value


def _changes(client: "Client", wanted: dict[str, Objects], prune: bool) -> Iterator[Change]:
    """What depends on something comes after it, and what is deleted comes last, the other way round."""
    gone: list[Change] = []
    for kind in SETTINGS:
        if kind not in wanted:
            continue
        existing = _existing(client, kind)
        if existing is None:
            fail(f"this client may not read {kind}, so they cannot be compared", FAILED)
        for name, settings in wanted[kind].items():
            yield from _difference(kind, name, settings, existing.get(name))
        if prune:
            gone += [_deletion(kind, one) for name, one in existing.items() if one and name not in wanted[kind]]
    yield from reversed(gone)


def _difference(kind: str, name: str, settings: dict[str, Any], existing: dict[str, Any] | None) -> Iterator[Change]:
    if existing is None:
        shown = ", ".join(f"{one}: {json_of(value)}" for one, value in settings.items())
        yield Change("create", kind[:-1], name, shown, _creation(kind, name, settings))
        return
    if not existing:
        fail(f"several clients have the name {printable(name)}; give them names of their own", FAILED)
    push = existing.get("push")
    if "push" in settings:
        settings = settings | {"push": merged(settings["push"], push)}
        existing = existing | {"push": readable(push)}
    differing = {one: value for one, value in settings.items() if _differs(one, value, existing)}
    if "push" in differing:
        keep_headers(name, push)
    if kept := differing.keys() & {"ordered", "fair_by"}:
        fail(f"{' and '.join(sorted(kept))} of subscription {name} cannot change: create another one", FAILED)
    if "topic_id" in differing:
        fail(
            f"subscription {name} has the topic {existing['topic_id']}; the topic of a subscription cannot change",
            FAILED,
        )
    if differing:
        shown = ", ".join(f"{one}: {json_of(existing.get(one))} → {json_of(value)}" for one, value in differing.items())
        yield Change("update", kind[:-1], name, shown, _update(kind, existing, settings, differing))


def _creation(kind: str, name: str, settings: dict[str, Any]) -> "Request[Any]":
    from fastpubsub.client import requests

    if kind == "clients":
        return requests.create_client(name, settings["scopes"], is_active=settings.get("is_active", True))
    if kind == "schedules":
        topic_id, _, name = name.partition("/")
        empty: Request[Any] = requests.create_schedule(topic_id, name)
    elif kind == "topics":
        empty = requests.create_topic(name)
    else:
        empty = requests.create_subscription(name, settings["topic_id"])
    return replace(empty, content=_body({"id": name} | settings))


def _update(kind: str, existing: dict[str, Any], settings: dict[str, Any], differing: dict[str, Any]) -> "Request[Any]":
    from fastpubsub.client import requests

    if kind == "clients":
        is_active = settings.get("is_active")
        return requests.update_client(
            existing["id"], name=existing["name"], scopes=settings["scopes"], is_active=is_active
        )
    id_ = existing["id"]
    if kind == "schedules":
        empty: Request[Any] = requests.update_schedule(existing["topic_id"], id_)
    elif kind == "topics":
        empty = requests.update_topic(id_, retention_seconds=None)
    else:
        empty = requests.update_subscription(id_)
    return replace(empty, content=_body(differing))


def _deletion(kind: str, existing: dict[str, Any]) -> Change:
    from fastpubsub.client import requests

    if kind == "schedules":
        topic_id, id_ = existing["topic_id"], existing["id"]
        return Change("delete", "schedule", f"{topic_id}/{id_}", "", requests.delete_schedule(topic_id, id_))
    build = {
        "topics": requests.delete_topic,
        "subscriptions": requests.delete_subscription,
        "clients": requests.delete_client,
    }
    name = existing["name"] if kind == "clients" else existing["id"]
    return Change("delete", kind[:-1], name, "", build[kind](existing["id"]))


def _existing(client: "Client", kind: str) -> Objects | None:
    """By name, without settings where several have the same; None without the right to read them."""
    from fastpubsub.client import requests
    from fastpubsub.client.errors import PermissionDenied

    if kind == "schedules":
        return _existing_schedules(client)
    build: dict[str, Callable[..., Request[Any]]] = {
        "topics": requests.list_topics,
        "subscriptions": requests.list_subscriptions,
        "clients": requests.list_clients,
    }
    found: Objects = {}
    try:
        for page in pages(client, lambda offset, limit: build[kind](offset=offset, limit=limit), None, 0, whole=True):
            for record in page:
                name = record.fields["name" if kind == "clients" else "id"]
                found[name] = {} if name in found else record.fields
    except PermissionDenied:
        note(f"fastpubsub: this client may not read {kind}")
        return None
    return found


def _existing_schedules(client: "Client") -> Objects | None:
    from fastpubsub.client import requests

    topics = _existing(client, "topics")
    if topics is None:
        return None
    found: Objects = {}
    for topic_id in topics:
        for record in token_pages(client, partial(requests.list_schedules, topic_id)):
            found[f"{topic_id}/{record.fields['id']}"] = record.fields
    return found


def _body(settings: dict[str, Any]) -> bytes:
    return body_of({name: Json(json_of(value)) for name, value in settings.items()})


OFF = (None, "", Decimal(0), ("bool", False), "drop", "continue", "reject")
USUAL = ("on_expired", "on_dead_letter", "on_full")


def _differs(name: str, value: Any, existing: dict[str, Any]) -> bool:
    """What is left out of `existing` is not so."""
    wanted, there = _exact(value), _exact(existing.get(name))
    is_off = name in ("ordered", *USUAL, *REMOVABLE) and wanted in OFF and there in OFF
    return not is_off and bool(wanted != there)


def _exact(value: Any) -> Any:
    """Numbers by value, and apart from texts and from true and false."""
    if isinstance(value, Number):
        return Decimal(value)
    if isinstance(value, dict):
        return {name: _exact(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_exact(one) for one in value]
    return ("bool", value) if isinstance(value, bool) else value
