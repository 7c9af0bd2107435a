"""A page of a list over topics, which may be on several nodes."""

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Listed(NamedTuple, Generic[T]):
    found: list[T]
    missing_topics: list[str]
    """Ids of topics of which nothing is in any page, because their node does not answer; 100 at most."""
