"""Tests of a filter."""

from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fastpubsub.models.fields import WholeNumber
from fastpubsub.models.publishing import MAX_ORDERING_KEY, check_attributes
from fastpubsub.models.subscriptions import Filter


class FilterTest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"filter": {"country": ["BR"]}}]})

    filter: Filter
    payload: dict[str, Any] | None = Field(None, description="the payload to judge, instead of the last messages")
    attributes: Annotated[dict[str, str] | None, BeforeValidator(check_attributes)] = Field(
        None, description="the attributes that are judged with the payload"
    )
    ordering_key: str | None = Field(
        None, min_length=1, max_length=MAX_ORDERING_KEY, description="the ordering key that is judged with the payload"
    )
    last: WholeNumber | None = Field(None, ge=1, le=1000, description="messages to judge, default 100")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.payload is not None and self.last is not None:
            raise ValueError("give `payload` or `last`, not both")
        if self.payload is None and self.attributes is not None:
            raise ValueError("give `attributes` only with a `payload`")
        if self.payload is None and self.ordering_key is not None:
            raise ValueError("give `ordering_key` only with a `payload`")
        return self


class FilteredExample(BaseModel):
    id: UUID
    payload: dict[str, Any] | None = Field(None, description="needs the scope `messages:read`")
    field: str | None = None
    expected: Any = None
    actual: Any = None
    similar_field: str | None = None
    detail: str | None = None


class FilterTested(BaseModel):
    """Of a payload `passes`, and why it does not; of the last messages the counts, and examples of both kinds."""

    passes: bool | None = None
    field: str | None = None
    expected: Any = None
    actual: Any = None
    similar_field: str | None = None
    detail: str | None = None
    looked_at: int | None = None
    passed: int | None = None
    passing: list[FilteredExample] | None = None
    filtered: list[FilteredExample] | None = None
    ahead_now: int | None = None
    ahead_after: int | None = None
    is_estimated: bool | None = None
