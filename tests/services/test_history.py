"""The recorder: each count is written once, or kept."""

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import FastpubsubError, OutcomeUnknown, Unavailable
from fastpubsub.models import NewSubscription, NewTopic
from fastpubsub.services.history import Recorder
from fastpubsub.services.subscriptions import create_subscription
from fastpubsub.services.topics import create_topic


class Failing:
    """A database that refuses one call."""

    def __init__(self, database: Database, error: FastpubsubError) -> None:
        self._database = database
        self._errors = [error]

    async def fetch_one(self, procedure: str, *arguments: object) -> object:
        if self._errors:
            raise self._errors.pop()
        return await self._database.fetch_one(procedure, *arguments)


@pytest.mark.parametrize(("error", "counted"), [(Unavailable("no"), 5), (OutcomeUnknown("lost"), 2)])
async def test_what_was_not_stored_is_kept_and_nothing_is_counted_twice(
    database: Database, settings: Settings, error: FastpubsubError, counted: int
) -> None:
    await create_topic(database, settings, NewTopic(id="t"), None)
    await create_subscription(database, settings, NewSubscription(id="s", topic_id="t"), None)
    counters = Counters(CollectorRegistry(), 10)
    recorder = Recorder(Failing(database, error), counters)  # type: ignore[arg-type]
    counters.published("t", 3)
    with pytest.raises(type(error)):
        await recorder.write()
    counters.published("t", 2)
    counters.acked("s", 7)
    counters.acked("deleted", 1)
    await recorder.write()
    await recorder.write()
    total = "select sum(published)::int, sum(acked)::int from fastpubsub.history where topic_key %s 0"
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value().replace("+psycopg", "")) as connection:
        assert connection.execute(total % ">").fetchall() == [(counted, 7)]
        # What was counted for an object that is gone is in the sum of the server.
        assert connection.execute(total % "=").fetchall() == [(counted, 8)]
