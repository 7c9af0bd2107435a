"""When something repeats: at the times of a cron expression in a time zone, or at an interval.

Days with a changed clock are those of the cron of Debian, by the library: a fixed time that does not exist comes right
after the change, one that exists twice comes the first time, and with `*` in the minutes or hours the clock decides.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from fastpubsub.exceptions import InvalidRequest

_FIELDS = 5


class Timetable:
    """All times are in UTC."""

    def __init__(self, cron: str | None, time_zone: str | None, interval_seconds: int | None) -> None:
        """Raises InvalidRequest for an expression or a time zone that is none."""
        self._cron = cron
        self._interval = timedelta(seconds=interval_seconds or 0)
        self._zone = UTC if cron is None else _zone(time_zone or "UTC")
        if cron is not None:
            _check(cron)

    def after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """The first time after a moment; None when there is none in 50 years. An interval counts from `anchor`."""
        return next(self._times(moment, anchor), None)

    def from_(self, first: datetime, until: datetime, limit: int) -> list[datetime]:
        """Up to `limit` times, of which `first` is one, up to a moment."""
        if first > until:
            return []
        return [first, *islice(takewhile(lambda time: time <= until, self._times(first, first)), limit - 1)]

    def upcoming(self, first: datetime, count: int) -> list[datetime]:
        """The next times, of which `first` is one."""
        return [first, *islice(self._times(first, first), count - 1)]

    def _times(self, moment: datetime, anchor: datetime) -> Iterator[datetime]:
        if self._cron is None:
            time = anchor + self._interval * max((moment - anchor) // self._interval + 1, 0)
            while True:
                yield time
                time += self._interval
        for found in CronSim(self._cron, moment.astimezone(self._zone)):
            # In an hour that comes twice, the library may answer a time of the first one.
            if (time := found.astimezone(UTC)) > moment:
                moment = time
                yield time


def _zone(name: str) -> tzinfo:
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InvalidRequest(
            f"time_zone: {name!r} is not a time zone of the IANA database; write one as Europe/Berlin, or UTC"
        ) from None


def _check(cron: str) -> None:
    if len(cron.split()) != _FIELDS:
        raise InvalidRequest(
            "cron: an expression has five fields (minute, hour, day of the month, month, day of the week), such as "
            "`0 9 * * MON-FRI`"
        )
    try:
        found = next(CronSim(cron, datetime.now(UTC)), None)
    except (CronSimError, ValueError, AssertionError, OverflowError) as error:
        raise InvalidRequest(
            f"cron: the expression cannot be read: {str(error) or 'one of its fields is wrong'}"
        ) from None
    if found is None:
        raise InvalidRequest("cron: no day of the next 50 years matches the expression")
