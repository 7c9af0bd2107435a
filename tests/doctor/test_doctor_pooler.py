"""Poolers, as `fastpubsub doctor` tells them apart."""

from contextlib import AbstractContextManager

import pytest

from fastpubsub.doctor.examination import examine
from fastpubsub.doctor.findings import Finding
from tests import pgbouncer
from tests.conftest import MakeSettings


async def judged(make_settings: MakeSettings, pooler: AbstractContextManager[str], configured: str) -> Finding:
    with pooler as url:
        found = await examine(make_settings(database_url=url, database_pooler=configured))
    assert not any("could not be checked" in one.what for one in found)
    (one,) = (one for one in found if one.check == "pooler")
    return one


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_transaction_mode(make_settings: MakeSettings, database_url: str, size: int) -> None:
    pooler = pgbouncer.running(database_url, size)
    assert (await judged(make_settings, pooler, "transaction")).what == "a pooler in transaction mode, as configured"


async def test_transaction_mode_that_is_not_configured(make_settings: MakeSettings, database_url: str) -> None:
    refusing = await judged(make_settings, pgbouncer.running(database_url), "none")
    assert (refusing.level, "start-up options" in refusing.what) == ("problem", True)
    dropping = await judged(make_settings, pgbouncer.running(database_url, ignored="options"), "none")
    assert dropping.level == "problem"
    assert dropping.next_step.startswith("set FASTPUBSUB_DATABASE_POOLER=transaction")


async def test_session_mode(make_settings: MakeSettings, database_url: str) -> None:
    pooler = pgbouncer.running(database_url, mode="session", ignored="options")
    assert (await judged(make_settings, pooler, "none")).what == "a pooler in session mode, as configured"
    pooler = pgbouncer.running(database_url, mode="session", ignored="options")
    assert (await judged(make_settings, pooler, "transaction")).next_step == "set FASTPUBSUB_DATABASE_POOLER=none"
