"""Figures beside the topics and subscriptions of a list: one call for all of them."""

from collections.abc import Sequence

from fastpubsub.database.calls import Database
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
    return {
        id_: SubscriptionFigures(
            subscription_id=id_,
            available=ahead + waiting,
            ahead=ahead,
            waiting=waiting,
            delivered=leased,
            acked=acked,
            dlq=dead,
            estimated=estimated,
            filtered=filtered,
            ttl_expired=ttl_expired or None,
            held_keys=held_keys or None,
            dropped=dropped or None,
            paused=is_paused or None,
            ahead_is_estimated=estimated,
            oldest_ahead_seconds=oldest_ahead,
            oldest_leased_seconds=oldest_leased,
            oldest_waiting_seconds=oldest_waiting,
            rates=SubscriptionRates(**dict(zip(SUBSCRIPTION_COLUMNS, rates, strict=True))),
        )
        for (
            id_,
            ahead,
            waiting,
            leased,
            dead,
            acked,
            filtered,
            estimated,
            is_paused,
            oldest_ahead,
            oldest_leased,
            oldest_waiting,
            *rates,
            ttl_expired,
            held_keys,
            dropped,
        ) in rows
    }
