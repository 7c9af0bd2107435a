"""A failure of a background job."""

import asyncio
import logging

import pytest

from fastpubsub.exceptions import Unavailable
from fastpubsub.services.surviving import Surviving

logger = logging.getLogger("job")


def test_the_database_is_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for level in (logging.WARNING, logging.DEBUG):
        with Surviving(logger, "the job", level):
            raise Unavailable("it is away")
    assert caplog.messages == ["the job waits for the database: it is away"]
    assert caplog.records[0].exc_info is None


def test_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    with Surviving(logger, "the job"):
        raise ZeroDivisionError
    assert caplog.messages == ["the job failed"]
    assert "ZeroDivisionError" in caplog.text


def test_the_end_of_the_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(asyncio.CancelledError), Surviving(logger, "the job"):
        raise asyncio.CancelledError
    assert caplog.messages == []
