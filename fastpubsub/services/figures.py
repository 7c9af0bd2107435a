"""Figures beside the topics and subscriptions of a list: one call for all of them."""

from collections.abc import Sequence

from fastpubsub.database.calls import Database
from fastpubsub.database.connections import Row
from fastpubsub.models import SubscriptionFigures, SubscriptionRates, TopicFigures, TopicRates
from fastpubsub.services.history import SUBSCRIPTION_COLUMNS
from fastpubsub.services.refused import count_refused

LOOK = 200
"""Messages that a filter judges for the figures of one subscription; a page has up to 100."""


async def topic_figures(database: Database, ids: Sequence[str]) -> dict[str, TopicFigures]:
    """By id; one that was deleted meanwhile is missing."""
    rows = await database.fetch_all("list_topic_figures", list(ids))
    refused = dict(await count_refused(database, len(ids), ids))
    return {
        id_: TopicFigures(
            published=published,
            kept=kept,
            subscriptions=subscriptions,
            refused=refused.get(id_),
            rates=TopicRates(published=rate),
        )
        for id_, published, kept, subscriptions, rate in rows
    }


async def subscription_figures(database: Database, ids: Sequence[str]) -> dict[str, SubscriptionFigures]:
    """By id; one that was deleted meanwhile is missing."""
    rows = await database.fetch_all("list_subscription_figures_2", list(ids), LOOK)
    return {row[0]: _figures(row) for row in rows}


_FIRST = (
    *("subscription_id", "ahead", "waiting", "delivered", "dlq", "acked", "filtered", "estimated", "paused"),
    *("oldest_ahead_seconds", "oldest_leased_seconds", "oldest_waiting_seconds"),
)
_LAST = ("ttl_expired", "held_keys", "dropped")
"""The columns of `list_subscription_figures_2` before and after the rates, by the names of their figures."""


def _figures(row: Row) -> SubscriptionFigures:
    end = len(row) - len(_LAST)
    known = dict(zip(_FIRST, row[: len(_FIRST)], strict=True))
    seldom = {name: value or None for name, value in zip(_LAST, row[end:], strict=True)}
    rates = zip(SUBSCRIPTION_COLUMNS, row[len(_FIRST) : end], strict=True)
    return SubscriptionFigures(
        **known | seldom | {"paused": known["paused"] or None},
        available=known["ahead"] + known["waiting"],
        ahead_is_estimated=known["estimated"],
        rates=SubscriptionRates(**dict(rates)),
    )
