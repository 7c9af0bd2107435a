"""From the last release to this one, under load: `make torture ARGS=F18b` does it with a filled database."""

from pathlib import Path

import pytest

from tests.upgrading import make_releases, upgrade


@pytest.mark.long
async def test_upgrading_under_load(tmp_path: Path, empty_database_url: str) -> None:
    await upgrade(*make_releases(tmp_path, empty_database_url))
