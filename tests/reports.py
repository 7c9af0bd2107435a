"""Reports of tests, as workers send them to the process that prints them."""

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Half a surrogate pair in a report, as tests of texts have it, ends a worker before it can say what failed."""
    return printable((yield))


def printable(data: Any) -> Any:
    """The same data, with each half of a surrogate pair written as its escape sequence, such as `\\ud800`."""
    match data:
        case str():
            return data.encode(errors="backslashreplace").decode()
        case dict():
            return {printable(name): printable(value) for name, value in data.items()}
        case list() | tuple():
            return type(data)(map(printable, data))
    return data
