"""Types of fields that several models have, and what an error of Pydantic says."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)


def explained(sentence: str) -> WrapValidator:
    """Gives one sentence instead of an error for every alternative."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(sentence) from None

    return WrapValidator(validate)


def _written_out(value: Any) -> Any:
    """A number, or a string of one, would be taken for seconds since 1970: `2020` is not the year."""
    if not re.match(r"\d{4}-\d{2}-\d{2}[Tt ]", str(value)):
        raise ValueError("write a time as 2026-01-31T12:00:00Z")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_written_out)]
UtcTime = Annotated[datetime, AfterValidator(lambda time: time.astimezone(UTC))]


def _not_bool(value: Any) -> Any:
    """Pydantic reads `false` as 0, which for a retention is the opposite of what somebody meant."""
    if isinstance(value, bool):
        raise ValueError("a whole number, not true or false")  # noqa: TRY004 - which pydantic does not catch
    return value


NOT_BOOL = BeforeValidator(_not_bool)
"""Comes after the bounds, or the OpenAPI document does not have them."""

WholeNumber = Annotated[int, NOT_BOOL]


def _not_dots(value: str) -> str:
    if value in (".", ".."):
        raise ValueError("an id cannot be `.` or `..`")
    return value


ObjectId = Annotated[
    str,
    Field(pattern=r"^[a-zA-Z0-9._-]{1,128}$", description="letters, digits, `.`, `_` and `-`; not `.` or `..`"),
    AfterValidator(_not_dots),
]

MAX_LEASE_SECONDS = 43_200
"""Twelve hours."""

MAX_DELAY_SECONDS = 604_800
"""A week: of a delay, and of a backoff."""


def sentence(error: Mapping[str, Any]) -> str:
    """What is wrong, of an error of Pydantic, which puts words before those of our own."""
    return str(error["msg"]).removeprefix("Value error, ")


MissingTopics = Annotated[
    list[str] | None,
    Field(description="topics that are left out, because their node of PostgreSQL does not answer; 100 at most"),
]
