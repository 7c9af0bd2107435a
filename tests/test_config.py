import re
from pathlib import Path

import pytest

from docs import directives
from fastpubsub.config import PREFIX, ConfigurationError, Settings, load_settings, misspelt

ROOT = Path(__file__).parent.parent
SPEC_DEFAULTS = {
    "database_url": None,
    "database_echo": False,
    "database_pool_size": 5,
    "database_max_overflow": 10,
    "database_pool_pre_ping": True,
    "log_level": "info",
    "log_formatter": (
        "asctime=%(asctime)s level=%(levelname)s pathname=%(pathname)s line=%(lineno)s message=%(message)s"
    ),
    "subscription_max_attempts": 5,
    "subscription_backoff_min_seconds": 5,
    "subscription_backoff_max_seconds": 300,
    "api_debug": False,
    "api_host": "0.0.0.0",
    "api_port": 8000,
    "api_num_workers": 1,
    "auth_enabled": False,
    "auth_secret_key": None,
    "auth_algorithm": "HS256",
    "auth_access_token_expire_minutes": 30,
    "cleanup_acked_messages_older_than_seconds": 3600,
    "cleanup_stuck_messages_lock_timeout_seconds": 60,
}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    return str(caught.value)


@pytest.mark.parametrize(("name", "default"), SPEC_DEFAULTS.items())
def test_defaults_of_the_spec(name: str, default: object) -> None:
    assert getattr(load_settings(), name) == default


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("FASTPUBSUB_API_PORT=1\nFASTPUBSUB_API_HOST=::1\nUNRELATED=1\n")
    monkeypatch.setenv("FASTPUBSUB_API_PORT", "2")
    settings = load_settings()
    assert (settings.api_port, settings.api_host) == (2, "::1")


def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTPUBSUB_API_PORT", "")
    monkeypatch.setenv("FASTPUBSUB_AUTH_SECRET_KEY", "")
    settings = load_settings()
    assert (settings.api_port, settings.auth_secret_key) == (8000, None)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("api_port", "abc", "FASTPUBSUB_API_PORT: 'abc' is not a whole number between 0 and 65535"),
        ("api_port", "65536", "FASTPUBSUB_API_PORT: '65536' is not a whole number between 0 and 65535"),
        ("api_num_workers", "1.5", "FASTPUBSUB_API_NUM_WORKERS: '1.5' is not a whole number between 1 and 256"),
        ("queue_max_messages", "0", "FASTPUBSUB_QUEUE_MAX_MESSAGES: '0' is not a whole number of at least 1"),
        (
            "database_pool_timeout_seconds",
            "nan",
            "FASTPUBSUB_DATABASE_POOL_TIMEOUT_SECONDS: 'nan' is not a number above 0 and up to 60",
        ),
        ("auth_enabled", "perhaps", "FASTPUBSUB_AUTH_ENABLED: 'perhaps' is not true or false"),
        ("auth_algorithm", "none", "FASTPUBSUB_AUTH_ALGORITHM: 'none' is not one of HS256, HS384, HS512, ES256, EdDSA"),
        (
            "auth_algorithm",
            "RS256",
            "FASTPUBSUB_AUTH_ALGORITHM: 'RS256' is not one of HS256, HS384, HS512, ES256, EdDSA",
        ),
        (
            "log_level",
            "loud",
            "FASTPUBSUB_LOG_LEVEL: 'loud' is not one of debug, info, warning, error, critical",
        ),
        ("database_pooler", "session", "FASTPUBSUB_DATABASE_POOLER: 'session' is not one of none, transaction"),
    ],
)
def test_one_sentence_for_a_wrong_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str) -> None:
    assert refusal(monkeypatch, **{name: value}) == sentence


def test_a_sentence_for_each_wrong_value(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(refusal(monkeypatch, api_port="x", database_echo="x", log_level="x").splitlines()) == 3


@pytest.mark.parametrize("formatter", ["%(nope)s", "%(message)", "no fields", "%(levelname)d"])
def test_a_formatter_that_would_fail_later(monkeypatch: pytest.MonkeyPatch, formatter: str) -> None:
    assert "FASTPUBSUB_LOG_FORMATTER: this is not a format" in refusal(monkeypatch, log_formatter=formatter)


@pytest.mark.parametrize(
    "addresses", ["999.1.1.1,foo", "10.0.0.1,", "10.0.0.1/8", "*,10.0.0.1", "localhost", "::g", "10.0.0.1:80"]
)
def test_proxies_that_are_no_addresses(monkeypatch: pytest.MonkeyPatch, addresses: str) -> None:
    sentence = refusal(monkeypatch, api_forwarded_allow_ips=addresses)
    assert sentence.startswith("FASTPUBSUB_API_FORWARDED_ALLOW_IPS: '")
    assert "is neither an address such as 10.0.0.7 nor a network such as 10.0.0.0/8" in sentence


@pytest.mark.parametrize("addresses", ["*", "127.0.0.1", "10.0.0.0/8, ::1,fd00::/8", ""])
def test_proxies(monkeypatch: pytest.MonkeyPatch, addresses: str) -> None:
    monkeypatch.setenv("FASTPUBSUB_API_FORWARDED_ALLOW_IPS", addresses)
    assert load_settings().api_forwarded_allow_ips == addresses


@pytest.mark.parametrize("token", ["hunter2", "hunter2" * 80, "hunter2 hunter2 hunter2", "hunter2-hunter2-é"])
def test_what_cannot_be_the_token_of_the_metrics(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    sentence = refusal(monkeypatch, metrics_token=token)
    assert sentence.startswith("FASTPUBSUB_METRICS_TOKEN: this is not a token of 16 to 512 letters")
    assert "hunter2" not in sentence


@pytest.mark.parametrize(
    "hosts", ["http://bus.example", "bus.example,", "a b", "*", ".example", "bus.example:x", "[x]"]
)
def test_hosts_that_are_none(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    sentence = refusal(monkeypatch, api_allowed_hosts=hosts)
    assert sentence.startswith("FASTPUBSUB_API_ALLOWED_HOSTS: '")
    assert "is neither a name such as bus.example nor one with a port" in sentence


def test_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().allowed_hosts() == frozenset()
    monkeypatch.setenv("FASTPUBSUB_API_ALLOWED_HOSTS", "Bus.example, localhost:3000,[::1]:8000")
    assert load_settings().allowed_hosts() == {"bus.example", "localhost:3000", "[::1]:8000"}


def test_long_and_strange_values_are_quoted_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, api_port="1\r\n\x1b" + "9" * 5000)
    assert sentence.isprintable()
    assert len(sentence) < 200


def test_secrets_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, database_url="mysql://user:hunter2@host/db", auth_enabled="1")
    assert "hunter2" not in sentence
    assert sentence.startswith("FASTPUBSUB_DATABASE_URL: the address does not start with postgresql://")
    monkeypatch.setenv("FASTPUBSUB_DATABASE_URL", "postgresql://user:hunter2@host/db")
    assert "hunter2" not in refusal(monkeypatch, auth_secret_key="hunter2")
    settings = Settings(database_url="postgresql://user:hunter2@host/db", auth_secret_key="hunter2", auth_enabled=False)
    assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_authentication_needs_a_long_key(monkeypatch: pytest.MonkeyPatch, algorithm: str, least: int) -> None:
    sentence = refusal(monkeypatch, auth_enabled="true", auth_algorithm=algorithm, auth_secret_key="k" * (least - 1))
    assert sentence == (
        f"FASTPUBSUB_AUTH_SECRET_KEY: authentication with {algorithm} needs a key of at least {least} bytes, "
        f"and this one has {least - 1}; make one with: fastpubsub generate_secret_key"
    )
    monkeypatch.setenv("FASTPUBSUB_AUTH_SECRET_KEY", "k" * least)
    assert load_settings().auth_enabled


def test_authentication_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "this one has 0" in refusal(monkeypatch, auth_enabled="true")


def test_the_backoff_must_not_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, subscription_backoff_min_seconds="400") == (
        "FASTPUBSUB_SUBSCRIPTION_BACKOFF_MAX_SECONDS: 300 is less than "
        "FASTPUBSUB_SUBSCRIPTION_BACKOFF_MIN_SECONDS, which is 400"
    )


def test_the_file_must_be_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"FASTPUBSUB_API_HOST=\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_settings()


def test_misspelt_names_are_told() -> None:
    names = ["FASTPUBSUB_AUTH_ENABLE", "FASTPUBSUB_PORT", "FASTPUBSUB_SERVICE_HOST", "PATH", "FASTPUBSUB_API_PORT"]
    assert misspelt(names) == [
        "FASTPUBSUB_AUTH_ENABLE is not a setting and is ignored; did you mean FASTPUBSUB_AUTH_ENABLED?"
    ]


def test_every_setting_is_described_with_its_default_and_its_bounds() -> None:
    rows = {name: rest for name, *rest in directives.settings()}
    assert list(rows) == [f"`{PREFIX}{name.upper()}`" for name in Settings.model_fields]
    assert rows["`FASTPUBSUB_API_PORT`"] == ["`8000`", "between 0 and 65535", "The port to listen on."]
    assert rows["`FASTPUBSUB_DATABASE_POOL_TIMEOUT_SECONDS`"][:2] == ["`2.0`", "above 0 and up to 60 seconds"]
    assert rows["`FASTPUBSUB_QUEUE_MAX_BYTES`"][:2] == ["`67108864`", "of at least 1024 bytes"]
    assert rows["`FASTPUBSUB_LOG_STYLE`"][:2] == ["`auto`", "`auto`, `line`, `json`, `terminal`"]
    assert rows["`FASTPUBSUB_CONSOLE_ENABLED`"][:2] == ["`true`", "`true`, `false`"]
    assert rows["`FASTPUBSUB_AUTH_SECRET_KEY`"][:2] == ["", "text"]


@pytest.mark.parametrize(("name", "text"), directives.descriptions().items())
def test_descriptions_are_sentences_in_a_cell_of_a_table(name: str, text: str) -> None:
    assert re.fullmatch(r"(?:`|[A-Z])[^|]+\.", text), name


def test_the_documented_format_is_the_default() -> None:
    assert f"    {SPEC_DEFAULTS['log_formatter']}\n" in (ROOT / "docs/configuration.md").read_text()


def test_the_sample_has_every_setting_and_no_secret() -> None:
    sample = ROOT / "env.sample"
    names = re.findall(r"^(FASTPUBSUB_\w+)=", sample.read_text(), re.MULTILINE)
    assert sorted(names) == sorted(PREFIX + name.upper() for name in Settings.model_fields)
    settings = Settings(_env_file=sample)
    assert settings.auth_secret_key is None
    assert settings == Settings(_env_file=None, database_url=settings.database_url)
