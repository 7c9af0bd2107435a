"""The wheel of the client has the part of `fastpubsub` that the client imports; that of the server has the rest.

Everything that is named here is excluded from the server's wheel in the pyproject.toml of the repository.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

FILES = (
    "__init__.py",
    "client",
    "delayed_ids.py",
    "exceptions.py",
    "filters.py",
    "integrations",
    "json_text.py",
    "message_ids.py",
    "models",
    "payload_schemas.py",
    "payloads.py",
    "py.typed",
    "refused_ids.py",
    "removable.py",
    "schema_shapes.py",
    "searches.py",
    "stopping.py",
    "testing",
    "timetables.py",
)


def package(root: str) -> Path:
    """Beside this file in a source distribution, and in the repository at its top."""
    here = Path(root) / "fastpubsub"
    return here if here.exists() else Path(root).parent.parent / "fastpubsub"


class Version(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = (package(self.root) / "__init__.py").read_text()
        metadata["version"] = re.findall(r'__version__ = "(.+)"', text)[0]


class Files(BuildHookInterface):  # type: ignore[type-arg]  # of a builder that it does not look at
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build_data["force_include"] |= {str(package(self.root) / name): f"fastpubsub/{name}" for name in FILES}
