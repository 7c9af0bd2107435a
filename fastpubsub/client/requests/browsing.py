"""Looking at messages without taking them."""

from fastpubsub.client.requests.identifiers import Id, Place, message_id_of, place_params
from fastpubsub.client.requests.request import Request, as_texts, only_given, page_params, path_to
from fastpubsub.models import BrowsedMessages, BrowsedState, BrowsedTopic, ExplainedMessage, Explanation


def explain(subscription_id: str, message: Id) -> Request[Explanation]:
    """Explains what happened to a message in a subscription, and why."""
    path = path_to("subscriptions", subscription_id, "messages", message_id_of(message))
    return Request("GET", path, Explanation.model_validate_json)


def get_message(message: Id, *, offset: int = 0, limit: int = 10) -> Request[ExplainedMessage]:
    """Gets a message, and what happened to it in the subscriptions of its topic."""
    path = path_to("messages", message_id_of(message))
    return Request("GET", path, ExplainedMessage.model_validate_json, params=page_params(offset, limit))


def browse_topic(
    topic_id: str,
    *,
    start_from: Place | None = None,
    before: Place | None = None,
    q: str | None = None,
    limit: int = 10,
) -> Request[BrowsedTopic]:
    """Reads up to 100 messages, oldest first: from a place on, or the newest ones, or the newest before a place.

    A place is a position, a time, or a message. `q`: `payload.field=value`, `attributes.name=value`, or a text in the
    payload; it needs the scope `messages:read`, and so do payloads. A page ends early after 10,000 messages, or a
    quarter of a second: continue with `next` as `start_from`, or with `previous` as `before`.
    """
    params = only_given(limit=limit, q=q) | place_params("from", start_from) | place_params("before", before)
    path = path_to("topics", topic_id, "messages")
    return Request("GET", path, BrowsedTopic.model_validate_json, params=as_texts(params))


def browse(
    subscription_id: str,
    state: BrowsedState = "ahead",
    *,
    start_from: Place | None = None,
    q: str | None = None,
    limit: int = 10,
) -> Request[BrowsedMessages]:
    """Reads up to 100 messages in a state without taking them; continue with `next` as `start_from`.

    They are ordered by position; waiting messages are ordered by the time when they are due. See also `browse_topic`.
    """
    params = only_given(state=state, limit=limit, q=q) | place_params("from", start_from)
    path = path_to("subscriptions", subscription_id, "messages", "browse")
    return Request("GET", path, BrowsedMessages.model_validate_json, params=as_texts(params))
