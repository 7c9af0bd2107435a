"""The settings of subscriptions: what they are when nobody says, and which go together."""

from fastpubsub.exceptions import InvalidRequest
from fastpubsub.models import NewPush, Subscription

DEFAULTS = {
    "max_delivery_attempts": 5,
    "backoff_min_seconds": 5,
    "backoff_max_seconds": 300,
    "ack_deadline_seconds": 60,
}
"""Of the settings of a server."""

CHOSEN = ("on_expired", "on_dead_letter", "on_full")


def or_default(value: int | None, default: int) -> int:
    return default if value is None else value


def check_backoff(subscription: Subscription) -> None:
    if subscription.backoff_max_seconds < subscription.backoff_min_seconds:
        raise InvalidRequest("backoff_max_seconds must not be below backoff_min_seconds")


def check_order(subscription: Subscription) -> None:
    if subscription.on_dead_letter == "hold" and not subscription.ordered:
        raise InvalidRequest("on_dead_letter: hold keeps a key in order, so it needs a subscription with ordered: true")
    if subscription.ordered and subscription.fair_by:
        raise InvalidRequest(
            "fair_by: an ordered subscription lets its keys take turns already: leave fair_by out, or ordered"
        )
    if subscription.fair_by and subscription.on_full != "reject":
        raise InvalidRequest(
            f'on_full: a subscription with fair_by cannot have "{subscription.on_full}", because it passes no message '
            'of a key: use "reject"'
        )
    if subscription.ordered and subscription.on_full != "reject":
        raise InvalidRequest(
            f'on_full: an ordered subscription cannot have "{subscription.on_full}", because it passes no message of a '
            'key: use "reject"'
        )


def refuse_push(push: NewPush | None) -> None:
    if push is not None:
        raise InvalidRequest(
            "the bus in memory pushes nothing by itself: leave out push, and call the push of the bus in the test"
        )
