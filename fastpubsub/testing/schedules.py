"""Schedules of the bus in memory. A server runs all the time here, so nothing is ever missed: `advance` fires all."""

from typing import Any

from fastpubsub import models
from fastpubsub.client.decimals import loads_exactly
from fastpubsub.exceptions import AlreadyExists, InvalidRequest, NotFound
from fastpubsub.json_text import member
from fastpubsub.payloads import make_batch
from fastpubsub.testing.calls import Answer, Call, Part, route
from fastpubsub.testing.store.log import Log
from fastpubsub.testing.store.records import Repeated, Stored
from fastpubsub.testing.store.store import Store
from fastpubsub.timetables import Timetable

MAX_SCHEDULES = 1000
MAX_DEPTH = 64
UPCOMING = 5


class Schedules(Part):
    @route("POST", "/topics/{id}/schedules", "create_schedule")
    def create_schedule(self, call: Call) -> Answer:
        new = call.read(models.NewSchedule)
        log = self.store.log(*call.ids)
        message = _message(self.store, log, call.body, new, b"{}")
        zone = (new.time_zone or "UTC") if new.cron else None
        timetable = Timetable(new.cron, zone, new.interval_seconds)
        if new.id in log.schedules:
            raise AlreadyExists(f'schedule "{new.id}" of this topic already exists')
        if len(log.schedules) >= MAX_SCHEDULES:
            raise InvalidRequest(f"a topic has at most {MAX_SCHEDULES} schedules")
        schedule = models.Schedule(
            id=new.id,
            topic_id=log.topic.id,
            payload={},
            cron=new.cron,
            time_zone=zone,
            interval_seconds=new.interval_seconds,
            catch_up=new.catch_up,
            created_at=self.store.now,
            next_at=timetable.after(self.store.now, self.store.now),
            fired=0,
            missed=0,
        )
        log.schedules[new.id] = Repeated(schedule, message, timetable)
        return 201, _shown(log.schedules[new.id])

    @route("GET", "/topics/{id}/schedules")
    def list_schedules(self, call: Call) -> Answer:
        found = [one for _, one in sorted(self.store.log(*call.ids).schedules.items())][call.after :]
        shown = found[: call.number("limit", 10, 1, 100)]
        end = None if len(shown) == len(found) else call.token(call.after + len(shown))
        data = [_shown(one).model_copy(update={"upcoming": None}) for one in shown]
        return 200, models.ScheduleList(data=data, next_page_token=end)

    @route("GET", "/topics/{id}/schedules/{id}")
    def get_schedule(self, call: Call) -> Answer:
        return 200, _shown(self._schedule(call))

    @route("PATCH", "/topics/{id}/schedules/{id}", "update_schedule")
    def update_schedule(self, call: Call) -> Answer:
        one, changed = self._schedule(call), call.read(models.ChangedSchedule)
        given, there = changed.model_fields_set, one.schedule
        new = _message(self.store, self.store.log(call.ids[0]), call.body, changed, one.message.payload)
        kept = {
            name: getattr(one.message, name) for name in ("payload", "attributes", "ordering_key") if name not in given
        }
        one.message = new._replace(**kept)
        times = _changed_times(there, changed)
        update: dict[str, Any] = {"catch_up": changed.catch_up or there.catch_up, "problem": None}
        if times != {name: getattr(there, name) for name in times}:
            one.timetable = Timetable(**times)
            update |= times
            if there.next_at is not None:
                update["next_at"] = one.timetable.after(self.store.now, self.store.now)
        one.schedule = there.model_copy(update=update)
        return 200, _shown(one)

    @route("DELETE", "/topics/{id}/schedules/{id}", "delete_schedule")
    def delete_schedule(self, call: Call) -> Answer:
        self._schedule(call)
        del self.store.log(call.ids[0]).schedules[call.ids[1]]
        return 204, None

    @route("POST", "/topics/{id}/schedules/{id}/pause", "pause_schedule")
    def pause_schedule(self, call: Call) -> Answer:
        one = self._schedule(call)
        paused_at = one.schedule.paused_at or self.store.now
        one.schedule = one.schedule.model_copy(update={"is_paused": True, "paused_at": paused_at, "next_at": None})
        return 200, _shown(one)

    @route("POST", "/topics/{id}/schedules/{id}/resume", "resume_schedule")
    def resume_schedule(self, call: Call) -> Answer:
        one = self._schedule(call)
        next_at = one.schedule.next_at or one.timetable.after(self.store.now, self.store.now)
        one.schedule = one.schedule.model_copy(update={"is_paused": False, "paused_at": None, "next_at": next_at})
        return 200, _shown(one)

    @route("POST", "/topics/{id}/schedules/{id}/fire", "fire_schedule")
    def fire_schedule(self, call: Call) -> Answer:
        one, log = self._schedule(call), self.store.log(call.ids[0])
        if log.schema is not None:
            log.schema.check([one.message.payload])
        log.fire(one, self.store.now, self.store.now)
        return 200, _shown(one)

    def _schedule(self, call: Call) -> Repeated:
        topic_id, id_ = call.ids
        schedules = self.store.log(topic_id).schedules
        if id_ not in schedules:
            raise NotFound(f'topic "{topic_id}" has no schedule "{id_}"')
        return schedules[id_]


def _message(
    store: Store, log: Log, body: bytes, new: models.NewSchedule | models.ChangedSchedule, default: bytes
) -> Stored:
    given: Any = new.payload
    payload = default if given is None else member(body, "payload") or default
    batch = make_batch(body, [payload], [new.attributes], [new.ordering_key], max_messages=1, max_depth=MAX_DEPTH)
    if log.schema is not None:
        log.schema.check(batch.payloads)
    return Stored(batch.payloads[0], (batch.attributes or [None])[0], store.now, new.ordering_key)


def _changed_times(there: models.Schedule, changed: models.ChangedSchedule) -> dict[str, Any]:
    if changed.interval_seconds is not None:
        return {"cron": None, "time_zone": None, "interval_seconds": changed.interval_seconds}
    cron = changed.cron or there.cron
    if cron is None:
        if changed.time_zone is not None:
            raise InvalidRequest("`time_zone` belongs to `cron`, and this schedule has an interval; give both")
        return {}
    return {"cron": cron, "time_zone": changed.time_zone or there.time_zone or "UTC", "interval_seconds": None}


def _shown(one: Repeated) -> models.Schedule:
    content = {
        "payload": loads_exactly(one.message.payload),
        "attributes": None if one.message.attributes is None else loads_exactly(one.message.attributes),
        "ordering_key": one.message.ordering_key,
    }
    next_at = one.schedule.next_at
    upcoming = None if next_at is None else one.timetable.upcoming(next_at, UPCOMING)
    return one.schedule.model_copy(update=content | {"upcoming": upcoming})
