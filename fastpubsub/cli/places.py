"""Where the server is, and which client asks: from options, variables, and a file of contexts, which have names."""

import json
import os
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import typer

from fastpubsub.cli import private_files
from fastpubsub.cli.exits import FAILED, WRONG_USAGE, fail, printable

URL, CLIENT_ID, CLIENT_SECRET = "FASTPUBSUB_URL", "FASTPUBSUB_CLIENT_ID", "FASTPUBSUB_CLIENT_SECRET"
MAX_BYTES = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)

in_use: str | None = None
"""The context that the running command takes the address of its server from."""


@dataclass(frozen=True)
class Context:
    url: str
    client_id: str | None = None
    client_secret: str | None = None


@dataclass
class Contexts:
    current: str | None = None
    known: dict[str, Context] = field(default_factory=dict)

    def get(self, name: str) -> Context:
        if name not in self.known:
            there = f"there are {', '.join(self.known)}" if self.known else "`fastpubsub context add` makes one"
            fail(f"there is no context {printable(name)}: {there}", WRONG_USAGE)
        return self.known[name]


def prepare() -> None:
    """Keeps httpx from importing a command line of its own, with all of rich, which takes a third of our start."""
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]


def choose(url: str | None, client_id: str | None, name: str | None) -> None:
    """Puts into the environment what a command uses: an option before a variable, a variable before the context.

    The secret of a context goes to no other address, and with no other client.
    """
    global in_use  # noqa: PLW0603 - a process runs one command
    prepare()
    if url is not None and name is not None:
        raise typer.BadParameter("give --url or --context, not both")
    context = _context(url, name)
    in_use = None if context is None else context[0]
    if url is not None:
        os.environ[URL] = url
    if context is not None:
        _use(os.environ, context[1], is_named=name is not None, client_id=client_id)
    if client_id is not None:
        os.environ[CLIENT_ID] = client_id


def _context(url: str | None, name: str | None) -> tuple[str, Context] | None:
    if name is None and (url is not None or os.environ.get(URL)):
        return None
    contexts = load()
    name = name or contexts.current
    return None if name is None else (name, contexts.get(name))


def _use(environ: MutableMapping[str, str], context: Context, *, is_named: bool, client_id: str | None) -> None:
    environ[URL] = context.url
    present = environ.get(CLIENT_ID)
    if present and not is_named:
        return
    if is_named and present != context.client_id and (present or context.client_id is None):
        environ.pop(CLIENT_ID, None)
        environ.pop(CLIENT_SECRET, None)
    if context.client_id is None:
        return
    environ[CLIENT_ID] = context.client_id
    is_its_client = client_id in (None, context.client_id)
    if context.client_secret is not None and is_its_client and (is_named or not environ.get(CLIENT_SECRET)):
        environ[CLIENT_SECRET] = context.client_secret


def without_password(url: str) -> str:
    """An address as it is shown."""
    import httpx

    return str(httpx.URL(url).copy_with(username=None, password=None))


def path() -> Path:
    folder = private_files.folder_of("XDG_CONFIG_HOME", ".config")
    if folder is None:
        fail("there is no home, so there are no contexts: set XDG_CONFIG_HOME to a folder", WRONG_USAGE)
    return folder / "contexts.json"


def load() -> Contexts:
    """Says what is wrong with the file, and exits; without a home there are none."""
    if private_files.folder_of("XDG_CONFIG_HOME", ".config") is None:
        return Contexts()
    try:
        content = private_files.read(path(), MAX_BYTES)
        return Contexts() if content is None else _parsed(content)
    except (OSError, ValueError, RecursionError, private_files.Untrusted) as error:
        _refuse(error, WRONG_USAGE)


def _parsed(content: bytes) -> Contexts:
    found = json.loads(content)
    try:
        known = {name: Context(**one) for name, one in found["contexts"].items()}
        current = found.get("current")
    except (TypeError, KeyError, AttributeError):
        raise ValueError("`fastpubsub context` did not write it; remove or mend it") from None
    for name, one in known.items():
        if not NAME.fullmatch(name) or not all(
            value is None or isinstance(value, str) for value in asdict(one).values()
        ):
            raise ValueError(f"{name!a} is not a context; remove or mend it")
        if problem := fault(one):
            raise ValueError(f"{name}: {problem}")
    return Contexts(current if current in known else None, known)


def fault(context: Context) -> str | None:
    """What is wrong with it, in words."""
    from fastpubsub.client.checks import address_fault, credential_fault

    if problem := address_fault(context.url):
        return f"the address of a server {problem}"
    for value, what in ((context.client_id, "client id"), (context.client_secret, "client secret")):
        if value is not None and (problem := credential_fault(value)):
            return f"the {what} {problem}"
    return None


@contextmanager
def changing() -> Iterator[Contexts]:
    """Stores what was changed; two commands do it one after the other."""
    file = path()
    try:
        with private_files.locked(file.parent):
            contexts = load()
            yield contexts
            known: dict[str, Any] = {name: asdict(one) for name, one in contexts.known.items()}
            content = json.dumps({"current": contexts.current, "contexts": known}, indent=1)
            private_files.write(file, content.encode() + b"\n")
    except (OSError, private_files.Untrusted) as error:
        _refuse(error, FAILED)


def _refuse(error: Exception, code: int) -> NoReturn:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    fail(f"{printable(str(path()))}: {reason}", code)
