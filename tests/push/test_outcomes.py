"""When an endpoint says that it wants to be asked again."""

from datetime import UTC, datetime

import pytest

from fastpubsub.push.outcomes import LONGEST_HOLD_SECONDS, retry_after

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7),
        ("9" * 1000, LONGEST_HOLD_SECONDS),
        ("Thu, 01 Jan 2026 00:00:07 GMT", 7),
        ("Thu, 01 Jan 2026 00:00:07", 7),
        ("0", None),
        ("000", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", LONGEST_HOLD_SECONDS),
        ("-5", None),
        ("1e9", None),
        ("\u00b2", None),
        ("", None),
        ("soon", None),
        ("Thu, 01 Jan 2026 00:00:00 +9999", None),
        ("Thu, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Thu, 01 Jan 2026 00:00:00 +99999999999999", None),
        (f"Thu, 01 Jan 2026 {'9' * 999}:00:00 GMT", None),
    ],
)
def test_whatever_an_endpoint_says(said: str, seconds: int | None) -> None:
    assert retry_after(said, NOW) == seconds
