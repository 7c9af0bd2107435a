"""The clock of a worker may be wrong: durations come from the server, and the monotonic clock measures them."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from uuid import UUID

import pytest

import fastpubsub.client
from fastpubsub.client import AsyncClient, requests
from fastpubsub.client.deliveries import Delivery, hold_of
from fastpubsub.client.exchange import Policy, exchange
from fastpubsub.client.leases import Leases
from tests.client.test_exchange import Play, answer

HOUR = timedelta(hours=1)
WRONG = [timedelta(), -HOUR, HOUR, timedelta(days=-400), timedelta(days=400)]


def delivered(lease_seconds: int, wrong: timedelta) -> Delivery:
    return Delivery(
        id=UUID("019c13cb-6d29-7000-8000-040000000001"),
        subscription_id="s",
        payload={},
        delivery_attempts=1,
        created_at=datetime.now(UTC) + wrong,
        ack_id="019c13cb-6d29-7000-8000-040000000001.0123456789abcdef",
        lease_expires_at=datetime.now(UTC) + wrong + timedelta(seconds=lease_seconds),
        lease_seconds=lease_seconds,
    )


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize(("lease_seconds", "renewed", "extended_by"), [(5, 2.5, 10), (20, 10, 20), (3600, 15, 3600)])
async def test_a_lease(wrong: timedelta, lease_seconds: int, renewed: float, extended_by: int) -> None:
    async with AsyncClient("http://127.0.0.1:9") as client:
        leases = Leases(client, "s")
        delivery = delivered(lease_seconds, wrong)
        leases.hold(delivery)
        (held,) = leases._held.values()
        assert hold_of(held).renew_at - asyncio.get_running_loop().time() == pytest.approx(renewed, abs=2)
        assert leases._extension([held]) == extended_by
        await leases.close()


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_date_to_come_back_at(wrong: timedelta) -> None:
    """It is compared with the date of the answer."""
    now = datetime.now(UTC) + wrong
    refused = answer(503, retry_after=format_datetime(now + timedelta(seconds=7)), date=format_datetime(now))
    error = Play(exchange(requests.metrics("s"), Policy(attempts=1)), refused).result
    assert error.retry_after == 7


def test_nothing_else_looks_at_the_time_of_the_day() -> None:
    """But for the date of an answer that has none, the times of signatures, and the ages of kept tokens and of what is
    shown to people. The clock of a database is another one.
    """
    folder = Path(fastpubsub.client.__file__).parent
    lines = [
        f"{path.name}: {line.strip()}"
        for place in (folder, folder.parent / "cli", folder.parent / "integrations")
        for path in sorted(place.glob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(r"(?<!func)\.(now|utcnow|today)\(|time\.time(_ns)?\(|localtime|gmtime", line)
    ]
    assert lines == [
        'exchange.py: until, now = _date(value), _date(date or "") or datetime.now(UTC)',
        "webhooks.py: _check_time(timestamp, tolerance_seconds, time.time() if now is None else now)",
        "posting.py: request = posted(self._place, {}, self._form, [self._key], message, int(time.time()))",
        "posting.py: outcome = outcome_of(answer, frozenset(), datetime.now(UTC))",
        "posting.py: return Posted(outcome, answer, datetime.now(UTC), int((time.monotonic() - started) * 1000))",
        "remembering.py: age = time.time() - saved_at",
        'remembering.py: content = {"token": token, "saved_at": time.time(), "seconds": self.fresh_seconds}',
        "remembering.py: if time.time() - file.lstat().st_mtime > KEPT_SECONDS:",
        "tables.py: seconds = int((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())",
    ]
