"""Dead letters of the bus in memory."""

from datetime import datetime

from pydantic_core import to_json

from fastpubsub import models
from fastpubsub.exceptions import NotFound
from fastpubsub.message_ids import Target, parse_targets
from fastpubsub.payloads import parse_ids
from fastpubsub.testing.answers import letter, listed
from fastpubsub.testing.calls import Answer, Call, Part, route
from fastpubsub.testing.consuming import MAX_IDS, Settle
from fastpubsub.testing.store.cursor import Cursor
from fastpubsub.testing.store.judging import Filter, passes
from fastpubsub.testing.store.records import Dead
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
        cursor = self.store.cursor(subscription_id)
        return 201, self._redrive(cursor, new, given_filter(call.body))

    @route("GET", "/subscriptions/{id}/redrives")
    def list_redrives(self, call: Call) -> Answer:
        self.store.cursor(*call.ids)
        return 200, models.RedriveList(data=self.redrives[call.ids[0]][::-1])

    @route("GET", "/subscriptions/{id}/redrives/{id}")
    def get_redrive(self, call: Call) -> Answer:
        return 200, self._find_redrive(*call.ids)

    @route("DELETE", "/subscriptions/{id}/redrives/{id}", "cancel_redrive")
    def cancel_redrive(self, call: Call) -> Answer:
        self._find_redrive(*call.ids)
        return 204, None

    def _redrive(self, cursor: Cursor, new: models.NewRedrive, wanted: Filter | None) -> models.Redrive:
        now = self.store.now
        before = min(new.died_before or now, now)
        matched = [
            Target(place, position, None, dead.message.created_at)
            for place, (position, dead) in enumerate(sorted(cursor.dead.items()))
            if fits(new, dead) and dead.died_at < before and passes(wanted, dead.message)
        ]
        moved = cursor.purge(matched, now) if new.action == "purge" else cursor.reprocess(matched, now)
        made = self.redrives[cursor.subscription.id]
        redrive = models.Redrive(
            **new.model_dump(exclude={"died_before", "filter"}),
            filter=new.filter or None,
            id=sum(map(len, self.redrives.values())) + 1,
            subscription_id=cursor.subscription.id,
            state="done",
            died_before=before,
            matched=len(matched),
            done=len(moved),
            created_at=now,
            ended_at=now,
        )
        made.append(redrive)
        return redrive

    def _find_redrive(self, subscription_id: str, redrive_id: str) -> models.Redrive:
        self.store.cursor(subscription_id)
        for redrive in self.redrives[subscription_id]:
            if str(redrive.id) == redrive_id:
                return redrive
        raise NotFound(f'subscription "{subscription_id}" has no redrive {redrive_id}')


def fits(wanted: models.NewRedrive, dead: Dead) -> bool:
    return (
        (wanted.reason is None or dead.reason == wanted.reason)
        and (wanted.died_after is None or dead.died_at >= wanted.died_after)
        and (wanted.died_before is None or dead.died_at < wanted.died_before)
    )


def moved(call: Call, cursor: Cursor, move: Settle) -> Answer:
    ids = parse_ids(call.body, max_ids=MAX_IDS)
    targets = list(parse_targets(ids, cursor.log.key).singly())
    moved = set(move(targets))
    answer = models.Moved(ids=[ids[one.place] for one in targets if one.position in moved])
    return (200, answer) if call.prefers_representation else (204, None)
