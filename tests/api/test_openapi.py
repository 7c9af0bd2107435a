"""The document says what there is, so that clients can be made from it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from fastpubsub.api.app import create_app
from fastpubsub.config import Settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(_env_file=None)).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_each_path_parameter_is_described(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        described = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert described == set(re.findall(r"\{(\w+)\}", path)), (method, path)


def test_each_answer_and_body_is_described(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        statuses = operation["responses"].keys()
        assert any(status.startswith("2") for status in statuses), (method, path)
        assert "default" in statuses or "4XX" in statuses or path in ("/liveness", "/readiness"), (method, path)
        assert operation["summary"], (method, path)
        assert ("requestBody" in operation) == takes_body(path, method), (method, path)
        prefers = any(one["name"] == "Prefer" for one in operation.get("parameters", []))
        assert prefers == ({"200", "204"} <= statuses or {"201", "204"} <= statuses), (method, path)


def takes_body(path: str, method: str) -> bool:
    return method in ("post", "put", "patch") or (method == "delete" and path.endswith("/dlq"))


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)
