"""`fastpubsub dev` pushes to this machine without any setting; that it does, the README of the example shows."""

import pytest

from fastpubsub.config import Settings
from fastpubsub.dev import push_settings
from tests.push.endpoint import KEY


def test_what_is_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTPUBSUB_PUSH_ALLOW_PORTS", "443")
    given = Settings(_env_file=None, database_url="postgresql://localhost/x")
    wanted = push_settings(given, KEY)
    assert wanted.keys() == {"push_allow_http", "push_allow_networks", "push_secret_key"}
    monkeypatch.setenv("FASTPUBSUB_PUSH_SECRET_KEY", 2 * KEY)
    given = Settings(_env_file=None, database_url="postgresql://localhost/x")
    assert "push_secret_key" not in push_settings(given, KEY)
