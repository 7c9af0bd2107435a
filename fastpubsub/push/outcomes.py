"""What an answer means for the message and for the endpoint."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

from fastpubsub.models import MAX_DELAY_SECONDS
from fastpubsub.push.answers import PushAnswer

GONE = 410
BUSY = (429, 503)
LONGEST_HOLD_SECONDS = 3600
"""An endpoint does not stop its own messages for longer, whatever it says."""


class Outcome(NamedTuple):
    does: Literal["ack", "nack", "reject", "return"]
    is_well: bool
    """Whether the endpoint works, so that the next message has a chance."""

    is_overloaded: bool = False
    hold_seconds: int | None = None
    """Until the endpoint wants to be asked again."""

    reason: str | None = None


def outcome_of(answer: PushAnswer, reject_on: frozenset[int], now: datetime) -> Outcome:
    status = answer.status
    said = f"the endpoint answered {status}" + (f": {answer.text}" if answer.text else "")
    if 200 <= status < 300:
        return Outcome("ack", is_well=True)
    if status in reject_on:
        return Outcome("reject", is_well=True, reason=said)
    if status in BUSY:
        seconds = retry_after(answer.headers.get("retry-after", ""), now)
        return Outcome("nack", is_well=False, is_overloaded=True, hold_seconds=seconds, reason=said)
    return Outcome("nack", is_well=400 <= status < 500, reason=said)


def refusal(answer: PushAnswer, origin: str) -> str | None:
    """Why an endpoint that was asked takes no events; None when it does."""
    allowed = answer.headers.get("webhook-allowed-origin", "").split(",")
    if 200 <= answer.status < 300 and not {"*", origin}.isdisjoint(one.strip() for one in allowed):
        return None
    wanted = f"2xx with WebHook-Allowed-Origin: {origin}"
    said = f": {answer.text}" if answer.text else ""
    return f"the endpoint takes no events: it answered {answer.status} to OPTIONS, and not {wanted}{said}"


def retry_after(text: str, now: datetime) -> int | None:
    """Seconds, given as such or as a date; None when it says neither, or at once.

    Proxies say 0 during an outage, which would use up the attempts of a message within milliseconds.
    """
    if text.isascii() and text.isdigit():
        return min(int(text[:10]), LONGEST_HOLD_SECONDS) or None
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(max(int(seconds), 0), LONGEST_HOLD_SECONDS, MAX_DELAY_SECONDS) or None
