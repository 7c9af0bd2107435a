"""What the answers about a subscription and its messages say."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from fastpubsub.models import SubscriptionFigures, SubscriptionMetrics, SubscriptionRates
from fastpubsub.testing.store.history import rates_of
from fastpubsub.testing.store.records import Failed, Lease, Passed, WaitingMessage
from fastpubsub.testing.store.state import CursorState


class Looking(CursorState):
    __slots__ = ()

    def explain(self, position: int) -> tuple[str, bool]:
        """The state of a message, and whether a seek may have put it there."""
        if position in self.leases:
            return "leased", False
        if any(waiting.position == position for waiting in self.all_waiting):
            return "waiting", False
        if position in self.dead:
            return "dead", False
        if position > self.position or position in self.aside():
            return ("ahead" if position in self.ahead() else "filtered"), False
        passed = self.passed.get(position, Passed("before_subscription"))
        if passed.is_filtered and position not in self.log.messages:
            return "trimmed", passed.is_sought
        return passed.state, passed.is_sought or passed.state in ("skipped", "purged")

    def browse(self, state: str) -> list[tuple[int, dict[str, Any]]]:
        """The messages in a state, in their order, each with what belongs to the state."""
        if state == "leased":
            leased = sorted(self.leases.items())
            return [(p, {"delivery_attempts": one.attempts} | of_lease(one)) for p, one in leased]
        if state == "waiting":
            return [(one.position, of_waiting(one)) for one in sorted(self.waiting, key=lambda one: one[:2])]
        if state == "dead":
            dead = sorted(self.dead.items())
            return [
                (p, {"delivery_attempts": one.attempts, "died_at": one.died_at, "reason": one.reason})
                for p, one in dead
            ]
        ahead = self.log.matching(self.position, self.wanted)
        return [(position, {"delivery_attempts": 0}) for position in ahead]

    def noted(self, state: str, position: int) -> dict[str, Any]:
        """What belongs to a message that is leased, waiting or dead."""
        parked = {one.position: of_waiting(one) for one in self.parked}
        return dict(self.browse(state)).get(position) or parked[position]

    def metrics(self) -> SubscriptionMetrics:
        return SubscriptionMetrics(
            subscription_id=self.subscription.id,
            available=len(self.ahead()) + len(self.all_waiting),
            delivered=len(self.leases),
            acked=self.acked,
            dlq=len(self.dead),
            estimated=False,
            filtered=self.filtered,
            ttl_expired=self.ttl_expired or None,
            held_keys=self.held_keys or None,
            dropped=self.dropped or None,
            paused=self.is_paused or None,
        )

    def figures(self, now: datetime) -> SubscriptionFigures:
        def age(positions: Iterable[int]) -> float | None:
            first = min(positions, default=None)
            return None if first is None else (now - self.message(first).created_at).total_seconds()

        return SubscriptionFigures(
            **self.metrics().model_dump(),
            ahead=len(self.ahead()),
            waiting=len(self.all_waiting),
            ahead_is_estimated=False,
            oldest_ahead_seconds=age(self.ahead()),
            oldest_leased_seconds=age(self.leases),
            oldest_waiting_seconds=age(one.position for one in self.all_waiting),
            rates=SubscriptionRates(**rates_of(self.past, now, SubscriptionRates.model_fields)),
        )


def of_waiting(one: WaitingMessage) -> dict[str, Any]:
    return {"delivery_attempts": one.attempts, "due_at": one.due_at, "reason": one.reason}


def of_failures(failures: list[Failed] | None) -> dict[str, Any]:
    """The failures of a message as answers have them: what is not known is left out, and so is all of it for none."""
    if not failures:
        return {}
    members = [failed._asdict() for failed in failures]
    return {"failures": [{name: one for name, one in member.items() if one is not None} for member in members]}


def of_lease(lease: Lease) -> dict[str, Any]:
    """What is known of who holds a message, by its names in answers."""
    return {
        "consumer_id": lease.consumer_id,
        "leased_at": lease.leased_at,
        "lease_expires_at": lease.expires_at,
    }
