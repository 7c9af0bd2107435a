"""Settings: every variable of the environment that fastpubsub reads."""

import logging
import re
from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from fastpubsub.addresses import Network, parse_networks
from fastpubsub.models import MAX_DELAY_SECONDS
from fastpubsub.sealing import MIN_KEY_CHARACTERS
from fastpubsub.signing_keys import Key, signing_key, verification_keys

PREFIX = "FASTPUBSUB_"
DATABASE_SCHEMES = ("postgresql://", "postgresql+psycopg://", "postgres://")
ISSUER = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9.-]+)(:[0-9]{1,5})?(/[a-zA-Z0-9._~-]+)*")
"""RFC 8414, section 2: without user, query and fragment; and without a slash at its end, which paths are added to."""

HOST = re.compile(r"([a-zA-Z0-9_-][a-zA-Z0-9._-]*|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?")
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*")
"""RFC 6750, section 2.1."""

LONGEST_ISSUER = 255
"""It is in every token."""

LONGEST_ECHO = 80
MAX_PORT = 65535
ALIKE = 0.9
"""Of 1; Kubernetes sets names such as FASTPUBSUB_PORT, which mean nothing to us."""


class ConfigurationError(Exception):
    """Wrong settings; each line of the text is a sentence about one of them, without any secret."""


def _check_database_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(DATABASE_SCHEMES):
        raise ValueError("the address does not start with postgresql:// or postgresql+psycopg://")
    return url


def _check_issuer(issuer: str) -> str:
    if not ISSUER.fullmatch(issuer) or len(issuer) > LONGEST_ISSUER:
        raise ValueError(
            "this is not the address of a server, such as https://bus.example or https://example.com/bus, without a "
            f"slash at its end and of up to {LONGEST_ISSUER} characters"
        )
    return issuer


def _check_log_formatter(formatter: str) -> str:
    record = logging.makeLogRecord({"msg": "m", "levelname": "INFO", "pathname": "p", "lineno": 1})
    try:
        logging.Formatter(formatter).format(record)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"this is not a format of Python's logging such as 'message=%(message)s': {error}") from None
    return formatter


def _check_hosts(hosts: str) -> str:
    for host in hosts.split(",") if hosts else ():
        if not HOST.fullmatch(host.strip()):
            raise ValueError(
                f"{host.strip()[:LONGEST_ECHO]!r} is neither a name such as bus.example nor one with a port such as "
                "localhost:3000; write them separated by commas, without http://"
            )
    return hosts


def _check_token(token: SecretStr) -> SecretStr:
    if not TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError(
            "this is not a token of 16 to 512 letters, digits and '-', '.', '_', '~', '+', '/'; make one with: "
            "fastpubsub generate_secret_key"
        )
    return token


def _check_addresses(addresses: str) -> str:
    for address in [] if addresses.strip() in ("", "*") else addresses.split(","):
        try:
            ip_network(address.strip())
        except ValueError:
            raise ValueError(
                f"{address.strip()[:LONGEST_ECHO]!r} is neither an address such as 10.0.0.7 nor a network such as "
                "10.0.0.0/8; write the proxies separated by commas, or * alone to trust every address"
            ) from None
    return addresses.strip()


def _check_networks(networks: str) -> str:
    try:
        parse_networks(networks)
    except ValueError as error:
        raise ValueError(
            "this is not a list of networks such as 10.0.0.0/8,fd00::/8, separated by commas: "
            f"{str(error)[:LONGEST_ECHO]}"
        ) from None
    return networks


def _check_ports(ports: str) -> str:
    for port in [] if ports == "*" else ports.split(","):
        if not (port.strip().isascii() and port.strip().isdigit() and 0 < int(port) <= MAX_PORT):
            raise ValueError(
                f"{port.strip()[:LONGEST_ECHO]!r} is not a port between 1 and {MAX_PORT}; write them separated by "
                "commas, or * alone for all"
            )
    return ports


def _check_push_key(keys: SecretStr) -> SecretStr:
    if not all(len(key) >= MIN_KEY_CHARACTERS for key in keys.get_secret_value().split(",")):
        raise ValueError(
            f"a key has at least {MIN_KEY_CHARACTERS} characters; make one with: fastpubsub generate_secret_key"
        )
    return keys


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """Each command reads it once, from `FASTPUBSUB_*` in the environment or `.env`, and passes it down."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    database_url: Annotated[SecretStr, AfterValidator(_check_database_url)] | None = None
    database_echo: bool = False
    database_pool_size: int = Field(5, ge=1, le=1000)
    database_max_overflow: int = Field(10, ge=0, le=1000)
    database_pool_pre_ping: bool = True
    database_pool_timeout_seconds: float = Field(2.0, gt=0, le=60)
    database_connect_timeout_seconds: int = Field(5, ge=2, le=60)
    database_call_timeout_seconds: float = Field(10.0, gt=0, le=600)
    database_lock_timeout_seconds: float = Field(2.0, gt=0, le=600)
    database_require_durability: bool = True
    database_pooler: Annotated[Literal["none", "transaction"], BeforeValidator(_lower)] = "none"

    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lower)] = "info"
    log_style: Annotated[Literal["auto", "line", "json", "terminal"], BeforeValidator(_lower)] = "auto"
    log_formatter: Annotated[str, AfterValidator(_check_log_formatter)] = (
        "asctime=%(asctime)s level=%(levelname)s pathname=%(pathname)s line=%(lineno)s message=%(message)s"
    )
    log_requests: bool = True

    subscription_max_attempts: int = Field(5, ge=1, le=1000)
    subscription_backoff_min_seconds: int = Field(5, ge=0, le=MAX_DELAY_SECONDS)
    subscription_backoff_max_seconds: int = Field(300, ge=0, le=MAX_DELAY_SECONDS)

    publish_max_messages: int = Field(1000, ge=1, le=100000)
    schema_max_bytes: int = Field(65536, ge=1024, le=1048576)
    filter_max_bytes: int = Field(65536, ge=1024, le=1048576)
    payload_max_depth: int = Field(64, ge=1, le=500)
    pull_max_waiting: int = Field(10000, ge=0, le=1000000)
    pull_max_bytes: int = Field(10485760, ge=1024, le=1073741824)
    settle_max_ids: int = Field(1000, ge=1, le=100000)
    idempotency_window_seconds: int = Field(86400, ge=1, le=2592000)
    stream_max_open: int = Field(10000, ge=0, le=1000000)
    stream_max_buffer_bytes: int = Field(1048576, ge=1024, le=1073741824)
    stream_heartbeat_seconds: float = Field(15.0, ge=0.05, le=3600)
    wake_poll_seconds: float = Field(5.0, ge=0.05, le=3600)
    queue_max_messages: int = Field(20000, ge=1)
    queue_max_bytes: int = Field(67108864, ge=1024)

    api_debug: bool = False
    api_host: str = Field("0.0.0.0", min_length=1)  # noqa: S104 - the spec's default, with a loud warning
    api_port: int = Field(8000, ge=0, le=65535)
    api_num_workers: int = Field(1, ge=1, le=256)
    api_max_body_bytes: int = Field(10485760, ge=1024, le=1073741824)
    api_max_header_bytes: int = Field(32768, ge=1024, le=1048576)
    api_max_headers: int = Field(100, ge=10, le=10000)
    api_header_timeout_seconds: float = Field(10.0, gt=0, le=600)
    api_body_timeout_seconds: float = Field(60.0, gt=0, le=3600)
    api_keep_alive_seconds: int = Field(65, ge=1, le=3600)
    api_shutdown_delay_seconds: float = Field(0.0, ge=0, le=300)
    api_shutdown_grace_seconds: int = Field(20, ge=1, le=3600)
    api_forwarded_allow_ips: Annotated[str, AfterValidator(_check_addresses)] = ""
    api_allowed_hosts: Annotated[str, AfterValidator(_check_hosts)] = ""
    api_docs_enabled: bool = True
    console_enabled: bool = True

    auth_enabled: bool = False
    auth_secret_key: SecretStr | None = None
    auth_verification_keys: SecretStr | None = None
    auth_algorithm: Literal["HS256", "HS384", "HS512", "ES256", "EdDSA"] = "HS256"
    auth_issuer: Annotated[str, AfterValidator(_check_issuer)] | None = None
    auth_access_token_expire_minutes: int = Field(30, ge=1, le=525600)
    auth_max_failures_per_client: int = Field(20, ge=0, le=1000000)
    auth_max_failures_per_address: int = Field(100, ge=0, le=1000000)

    cleanup_acked_messages_older_than_seconds: int = Field(3600, ge=0, le=315360000)
    cleanup_stuck_messages_lock_timeout_seconds: int = Field(60, ge=1, le=43200)
    lease_expiry_interval_seconds: float = Field(1.0, ge=0.05, le=3600)
    outbox_poll_interval_seconds: float = Field(0.05, ge=0.005, le=60)
    delayed_max_overdue_seconds: int = Field(21600, ge=60, le=315360000)
    trim_interval_seconds: float = Field(10.0, ge=0.05, le=86400)

    push_enabled: bool = True
    push_secret_key: Annotated[SecretStr, AfterValidator(_check_push_key)] | None = None
    push_allow_http: bool = False
    push_allow_networks: Annotated[str, AfterValidator(_check_networks)] = ""
    push_allow_ports: Annotated[str, AfterValidator(_check_ports)] = "443,8443"
    push_attempts_retention_seconds: int = Field(86400, ge=0, le=31536000)
    push_max_in_flight: int = Field(100, ge=1, le=10000)
    push_max_per_second: int = Field(500, ge=1, le=1000000)

    audit_retention_seconds: int = Field(7776000, ge=0, le=315360000)

    metrics_token: Annotated[SecretStr, AfterValidator(_check_token)] | None = None
    metrics_max_subscriptions: int = Field(1000, ge=0, le=100000)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.subscription_backoff_max_seconds < self.subscription_backoff_min_seconds:
            raise ValueError(
                f"{PREFIX}SUBSCRIPTION_BACKOFF_MAX_SECONDS: {self.subscription_backoff_max_seconds} is less than "
                f"{PREFIX}SUBSCRIPTION_BACKOFF_MIN_SECONDS, which is {self.subscription_backoff_min_seconds}"
            )
        if self.auth_enabled:
            self.auth_keys()
        return self

    def allowed_hosts(self) -> frozenset[str]:
        """Returns them as headers name them, with or without a port."""
        return frozenset(host.strip().lower() for host in self.api_allowed_hosts.split(",") if host)

    def push_networks(self) -> tuple[Network, ...]:
        return parse_networks(self.push_allow_networks)

    def push_ports(self) -> frozenset[int] | None:
        """None for all."""
        ports = self.push_allow_ports
        return None if ports == "*" else frozenset(int(port) for port in ports.split(","))

    def push_keys(self) -> list[str]:
        """The first seals, all open; none when nothing can be pushed."""
        return _text(self.push_secret_key).split(",") if self.push_secret_key else []

    def auth_keys(self) -> list[Key]:
        """The first signs; raises ValueError with a sentence about the one that cannot be used."""
        signing, others = _text(self.auth_secret_key), _text(self.auth_verification_keys)
        variable = "AUTH_SECRET_KEY"
        try:
            first = signing_key(signing, self.auth_algorithm)
            variable = "AUTH_VERIFICATION_KEYS"
            return [first, *verification_keys(others, self.auth_algorithm)]
        except ValueError as error:
            raise ValueError(f"{PREFIX}{variable}: {error}") from None


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; raises ConfigurationError with a sentence for each wrong one."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentence(one) for one in error.errors())) from None
    except UnicodeDecodeError:
        raise ConfigurationError("the file .env is not UTF-8 text; save it as UTF-8") from None


def misspelt(names: Iterable[str]) -> list[str]:
    """A sentence for each variable that looks like one of ours and is none."""
    known = [PREFIX + field.upper() for field in Settings.model_fields]
    sentences = []
    for name in sorted(names):
        close = get_close_matches(name, known, 1, ALIKE) if name.startswith(PREFIX) and name not in known else []
        sentences += [f"{name} is not a setting and is ignored; did you mean {one}?" for one in close]
    return sentences


def _sentence(error: Any) -> str:
    if not error["loc"]:
        return str(error["ctx"]["error"])
    name = str(error["loc"][0])
    field = Settings.model_fields[name]
    variable = PREFIX + name.upper()
    if error["type"] == "value_error":
        return f"{variable}: {error['ctx']['error']}"
    if _is_secret(field):
        return f"{variable}: this is not a string"
    return f"{variable}: {str(error['input'])[:LONGEST_ECHO]!r} is not {_expected(field)}"


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation)


def _expected(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(get_args(field.annotation))
    if field.annotation is bool:
        return "true or false"
    if field.annotation is str:
        return "a string of at least one character"
    return ("a whole number" if field.annotation is int else "a number") + _bounds(field)


def _bounds(field: FieldInfo) -> str:
    limits = {
        name: value
        for rule in field.metadata
        for name in ("ge", "gt", "le")
        if (value := getattr(rule, name, None)) is not None
    }
    if "gt" in limits:
        return f" above {limits['gt']:g} and up to {limits['le']:g}"
    if "le" in limits:
        return f" between {limits['ge']} and {limits['le']}"
    return f" of at least {limits['ge']}"
