"""Dead letters of the bus in memory."""

from datetime import datetime

from pydantic_core import to_json

from fastpubsub import models
from fastpubsub.exceptions import NotFound
from fastpubsub.message_ids import parse_targets
from fastpubsub.payloads import parse_ids
from fastpubsub.testing.answers import letter, listed
from fastpubsub.testing.calls import Answer, Call, Part, route
from fastpubsub.testing.consuming import MAX_IDS, Settle
from fastpubsub.testing.store.cursor import Cursor
from fastpubsub.testing.store.records import Redriven
from fastpubsub.testing.store.redriving import fits
from fastpubsub.testing.subscriptions import given_filter

MAX_REASONS = 100


class DeadLetters(Part):
    @route("GET", "/subscriptions/{id}/dlq")
    def list_dead_letters(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        wanted, after = call.wanted_letters, call.after
        found = [one for one in sorted(cursor.dead.items()) if one[0] > after and fits(wanted, one[1])]
        letters = call.page(found)
        data = listed([letter(cursor, position, dead) for position, dead in letters])
        if not letters or letters[-1] is found[-1]:
            return 200, data
        return 200, data[:-1] + b',"next_page_token":' + to_json(call.token(letters[-1][0])) + b"}"

    @route("POST", "/subscriptions/{id}/dlq/reprocess", "reprocess_dead_letters")
    def reprocess(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        return moved(call, cursor, lambda targets: cursor.reprocess(targets, self.store.now))

    @route("DELETE", "/subscriptions/{id}/dlq", "purge_dead_letters")
    def purge_dead_letters(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        return moved(call, cursor, lambda targets: cursor.purge(targets, self.store.now))

    @route("GET", "/subscriptions/{id}/dlq/reasons")
    def list_dead_letter_reasons(self, call: Call) -> Answer:
        times: dict[str, list[datetime]] = {}
        for dead in self.store.cursor(*call.ids).dead.values():
            times.setdefault(dead.reason, []).append(dead.died_at)
        found = [
            models.DeadLetterReason(reason=reason, count=len(died), first_died_at=min(died), last_died_at=max(died))
            for reason, died in sorted(times.items(), key=lambda item: (-len(item[1]), item[0]))
        ]
        return 200, models.DeadLetterReasonList(data=found[:MAX_REASONS])

    @route("POST", "/subscriptions/{id}/redrives", "create_redrive")
    def create_redrive(self, call: Call) -> Answer:
        """It is done at once, whatever its rate."""
        subscription_id, new = call.ids[0], call.read(models.NewRedrive)
        cursor, now = self.store.cursor(subscription_id), self.store.now
        self.store.last_redrive += 1
        redrive = cursor.begin_redrive(self.store.last_redrive, new, given_filter(call.body), now)
        cursor.go_on_with(redrive, now)
        return 201, shown(subscription_id, redrive)

    @route("GET", "/subscriptions/{id}/redrives")
    def list_redrives(self, call: Call) -> Answer:
        redrives = self.store.cursor(*call.ids).redrives[::-1]
        return 200, models.RedriveList(data=[shown(call.ids[0], one) for one in redrives])

    @route("GET", "/subscriptions/{id}/redrives/{id}")
    def get_redrive(self, call: Call) -> Answer:
        return 200, shown(call.ids[0], self._find_redrive(*call.ids))

    @route("DELETE", "/subscriptions/{id}/redrives/{id}", "cancel_redrive")
    def cancel_redrive(self, call: Call) -> Answer:
        self.store.cursor(call.ids[0]).cancel_redrive(self._find_redrive(*call.ids), self.store.now)
        return 204, None

    def _find_redrive(self, subscription_id: str, redrive_id: str) -> Redriven:
        for redrive in self.store.cursor(subscription_id).redrives:
            if str(redrive.key) == redrive_id:
                return redrive
        raise NotFound(f'subscription "{subscription_id}" has no redrive {redrive_id}')


def shown(subscription_id: str, redrive: Redriven) -> models.Redrive:
    wanted = redrive.wanted
    return models.Redrive(
        **wanted.model_dump(exclude={"filter"}),
        filter=wanted.filter or None,
        id=redrive.key,
        subscription_id=subscription_id,
        state=redrive.state,
        matched=redrive.matched,
        done=redrive.done,
        created_at=redrive.created_at,
        ended_at=redrive.ended_at,
    )


def moved(call: Call, cursor: Cursor, move: Settle) -> Answer:
    ids = parse_ids(call.body, max_ids=MAX_IDS)
    targets = list(parse_targets(ids, cursor.log.key).singly())
    moved = set(move(targets))
    answer = models.Moved(ids=[ids[one.place] for one in targets if one.position in moved])
    return (200, answer) if call.prefers_representation else (204, None)
