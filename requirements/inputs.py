"""Prints what `make lock` pins: the dependencies of both distributions, and of the extras of the server that are named.

The client is left out: it comes from this repository, and from no package index.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return found


def inputs(extras: list[str]) -> set[str]:
    client, server = project(ROOT / "packages" / "client"), project(ROOT)
    optional = {one for extra in extras for one in server["optional-dependencies"][extra]}
    return {one for one in [*client["dependencies"], *server["dependencies"], *optional] if client["name"] not in one}


if __name__ == "__main__":
    print(*sorted(inputs(sys.argv[1:])), sep="\n")
