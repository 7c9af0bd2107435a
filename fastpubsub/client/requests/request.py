"""What a request is, and what the functions that build one share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from fastpubsub.client.checks import check_headers, check_text
from fastpubsub.client.decimals import read_exactly, write_exactly
from fastpubsub.client.existing import CONFLICT

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
REPRESENTATION = {"Prefer": "return=representation"}


class Unset:
    """Stays as it is."""


UNSET: Final = Unset()


@dataclass(slots=True)  # not frozen: those take three times as long to make, and every call makes one
class Request(Generic[T]):
    """`read` makes the result of a 2xx answer.

    `repeatable`: doing it twice is the same as once, so it is sent again when nobody knows whether it was done.
    `instead`: what to send when the answer has this status; `reconcile` gets what was sent first, and what was answered
    then, and may say what to send next. `done`: a status that means that it is done already.
    `holds`: seconds that the server may take on purpose.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    content: bytes | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    instead: "Mapping[int, Request[T]]" = field(default_factory=dict)
    reconcile: "Callable[[bytes, bytes], Request[T] | None]" = lambda _sent, _found: None
    done: int | None = None
    holds: float = 0.0

    def __post_init__(self) -> None:
        check_headers(self.headers)
        for name, value in self.params.items():
            check_text(name, value)


class Page(list[T]):
    """A list with `next_page_token`, which is None on the last page. A page may be empty and not the last."""

    next_page_token: str | None = None


def read_page(model: type[Any], answer: bytes) -> Page[Any]:
    read = model.model_validate_json(answer)
    page = Page(read.data)
    page.next_page_token = read.next_page_token
    return page


def creating(
    path: str,
    body: Mapping[str, Any],
    model: type[Model],
    existing: Request[Model] | None = None,
    require_same: Callable[[bytes, bytes], None] = lambda _sent, _found: None,
) -> Request[Model]:
    """Not repeatable: the second time it would be refused, or done twice."""
    return Request(
        "POST",
        path,
        partial(read_exactly, model),
        write_exactly(body, write_json),
        repeatable=existing is not None,
        instead={} if existing is None else {CONFLICT: existing},
        reconcile=require_same,
    )


def only_given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def deleting(path: str) -> Request[None]:
    return Request("DELETE", path, no_result, done=404)


@lru_cache
def path_to(*parts: str) -> str:
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError(f"{part!r} is not an id")
        check_text("an id", part)
    return "/" + "/".join(quote(part, safe="") for part in parts)


def page_params(offset: int, limit: int) -> dict[str, str]:
    return {"offset": str(offset), "limit": str(limit)}


def metrics_params(included: bool) -> dict[str, str]:
    return {"include": "metrics"} if included else {}


def as_texts(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items()}


def no_result(_answer: bytes) -> None:
    return None


def write_json(value: Any) -> bytes:
    """NaN and infinities stay what they are, so that the server refuses them, instead of becoming null."""
    try:
        return to_json(value, by_alias=True, inf_nan_mode="constants")
    except PydanticSerializationError as error:
        raise ValueError(f"this value cannot be written as JSON: {error}") from None
