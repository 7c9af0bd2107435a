"""Copies the procedures of migrations/functions into a migration, where they stay as they are.

python migrations/freeze.py --rewrite    the newest migration of procedures again, as long as it was not released
python migrations/freeze.py --new NAME   a next migration with what has changed since the last one, and the way back
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
SECTION = re.compile(r"^-- functions/(\w+)\.sql\n", re.MULTILINE)
DROPPED = re.compile(r"drop function fastpubsub\.\w+;\s*")
FOR_OLDER_SERVERS = "_for_older_servers.up.sql"
CREATED = re.compile(r"^create(?: or replace)? function fastpubsub\.(\w+)", re.MULTILINE)
REPLACED = re.compile(r"^create or replace function fastpubsub\.(\w+)", re.MULTILINE)
SIGNATURE = re.compile(r"create or replace function .*?\nlanguage ", re.DOTALL)


def canonical() -> dict[str, str]:
    """By name, each ending in one newline."""
    files = sorted((FOLDER / "functions").glob("*.sql"))
    return {file.stem: file.read_text(encoding="utf-8").strip() + "\n" for file in files}


def frozen(before: str | None = None) -> dict[str, str]:
    """What the migrations leave behind, one after the other; with `before`, those ahead of that one.

    Without what only the servers of the last release call.
    """
    functions: dict[str, str] = {}
    for file in sorted((FOLDER / "versions").glob("*.up.sql")):
        if before is not None and file.name >= before:
            break
        text = file.read_text(encoding="utf-8")
        functions |= sections(text)
        if file.name.endswith(FOR_OLDER_SERVERS):
            older = CREATED.findall(text)
            functions = {name: one for name, one in functions.items() if name not in older}
    return {name: text for name, text in functions.items() if not DROPPED.fullmatch(text)}


def sections(text: str) -> dict[str, str]:
    """By name, as the canonical file has it: without the statement that drops a function of another signature."""
    _, *parts = SECTION.split(text)
    return {name: created(body.strip() + "\n") for name, body in zip(parts[::2], parts[1::2], strict=True)}


def created(text: str) -> str:
    dropped = DROPPED.match(text)
    return text[dropped.end() :] if dropped and dropped.end() < len(text) else text


def difference(old: dict[str, str], new: dict[str, str]) -> str:
    """The statements that turn old into new. A name has one signature, so it suffices for dropping."""
    changed = {name: replacing(old.get(name), text) for name, text in new.items() if old.get(name) != text}
    kept = replaced_for_older_servers()
    dropped = {name: f"drop function fastpubsub.{name};\n" for name in old if name not in new and name not in kept}
    return "\n".join(f"-- functions/{name}.sql\n{text}" for name, text in sorted((changed | dropped).items()))


def replaced_for_older_servers() -> set[str]:
    """What the next migration replaces: dropped before, it would be missing in calls that are under way."""
    files = (FOLDER / "versions").glob(f"*{FOR_OLDER_SERVERS}")
    return {name for file in files for name in REPLACED.findall(file.read_text(encoding="utf-8"))}


def replacing(old: str | None, new: str) -> str:
    """A function with another signature would stand beside the old one, and calls would not know which one is meant."""
    if old is None or signature(old) == signature(new):
        return new
    (name,) = re.findall(r"create or replace function fastpubsub\.(\w+)", new)
    return f"drop function fastpubsub.{name};\n{new}"


def signature(text: str) -> str | None:
    found = SIGNATURE.search(text)
    return found and found.group()


def write(stem: str, old: dict[str, str], new: dict[str, str]) -> None:
    (FOLDER / "versions" / f"{stem}.up.sql").write_text(difference(old, new), encoding="utf-8")
    (FOLDER / "versions" / f"{stem}.down.sql").write_text(difference(new, old), encoding="utf-8")


def create(name: str) -> str:
    last = max(file.name[:4] for file in (FOLDER / "versions").glob("[0-9]*.py"))
    revision = f"{int(last) + 1:04}"
    command = [sys.executable, "-m", "alembic", "revision", "--rev-id", revision, "--message", name]
    subprocess.run(command, cwd=FOLDER.parent, check=True)  # noqa: S603 - our own arguments
    return f"{revision}_{name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--rewrite", action="store_true")
    group.add_argument("--new", metavar="NAME", type=identifier)
    options = parser.parse_args()
    if options.rewrite:
        newest = max(file.name.removesuffix(".up.sql") for file in (FOLDER / "versions").glob("*_functions.up.sql"))
        write(newest, frozen(before=newest), canonical())
    else:
        old = frozen()
        write(create(options.new), old, canonical())


def identifier(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,39}", text):
        raise argparse.ArgumentTypeError("a name is 2 to 40 lower-case letters, digits and underscores")
    return text


if __name__ == "__main__":
    main()
