"""Settings: every variable of the environment that fastpubsub reads."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from fastpubsub.addresses import Network, parse_networks
from fastpubsub.models import MAX_DELAY_SECONDS
from fastpubsub.setting_checks import (
    LONGEST_ECHO,
    can_trace,
    check_addresses,
    check_database_url,
    check_folder,
    check_hosts,
    check_issuer,
    check_log_formatter,
    check_networks,
    check_ports,
    check_push_key,
    check_token,
)
from fastpubsub.signing_keys import Key, signing_key, verification_keys

PREFIX = "FASTPUBSUB_"
ALIKE = 0.9
"""Of 1; Kubernetes sets names such as FASTPUBSUB_PORT, which mean nothing to us."""


class ConfigurationError(Exception):
    """Wrong settings; each line of the text is a sentence about one of them, without any secret."""


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """Each command reads it once, from `FASTPUBSUB_*` in the environment or `.env`, and passes it down.

    The text under each field is Markdown of docs/reference/settings.md.
    """

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

    database_url: Annotated[SecretStr, AfterValidator(check_database_url)] | None = None
    """The address of PostgreSQL, for every command but `dev`, `generate_secret_key` and `healthcheck`; see [the
    database URL](../configuration.md#the-database-url).
    """

    database_echo: bool = False
    """Whether every SQL statement is logged, without its values."""

    database_pool_size: int = Field(5, ge=1, le=1000)
    """Each worker process has up to so many connections and `FASTPUBSUB_DATABASE_MAX_OVERFLOW` more, one for readiness,
    and one to listen to other servers.
    """

    database_max_overflow: int = Field(10, ge=0, le=1000)
    """Connections beyond `FASTPUBSUB_DATABASE_POOL_SIZE`; they are kept open like the others."""

    database_pool_pre_ping: bool = True
    """Whether a connection that has idled for 5 seconds is tested before it is used."""

    database_pool_timeout_seconds: float = Field(2.0, gt=0, le=60)
    """How long a request waits for a free connection before it gets 503."""

    database_connect_timeout_seconds: int = Field(5, ge=2, le=60)
    """How long connecting may take."""

    database_call_timeout_seconds: float = Field(10.0, gt=0, le=600)
    """How long a call waits for the database; then it gets 503 and its outcome is unknown."""

    database_lock_timeout_seconds: float = Field(2.0, gt=0, le=600)
    """How long a call waits for a lock in the database."""

    database_require_durability: bool = True
    """Whether the server is not ready when `fsync` or `full_page_writes` is off; set `false` where the storage makes
    them unnecessary.
    """

    database_pooler: Annotated[Literal["none", "transaction"], BeforeValidator(_lower)] = "none"
    """`transaction` behind a pooler in transaction mode, such as pgbouncer: no prepared statements, no start-up
    options, no `LISTEN`; see [operations](../operations.md#pgbouncer).
    """

    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lower)] = "info"
    """The lowest level that is logged."""

    log_style: Annotated[Literal["auto", "line", "json", "terminal"], BeforeValidator(_lower)] = "auto"
    """`line` follows `FASTPUBSUB_LOG_FORMATTER`; `json` is one object for each event; `terminal` is short and colored,
    for people; see [logs](../configuration.md#logs).
    """

    log_formatter: Annotated[str, AfterValidator(check_log_formatter)] = (
        "asctime=%(asctime)s level=%(levelname)s pathname=%(pathname)s line=%(lineno)s message=%(message)s"
    )
    """The format of a line, as that of Python's `logging`; the message itself is `key=value` for requests. The default
    is that of [configuration](../configuration.md#logs).
    """

    log_requests: bool = True
    """Whether each request has a line; those of `/liveness`, `/readiness` and `/metrics` have the level `debug`."""

    subscription_max_attempts: int = Field(5, ge=1, le=1000)
    """Default of `max_delivery_attempts` of subscriptions: deliveries of a message."""

    subscription_backoff_min_seconds: int = Field(5, ge=0, le=MAX_DELAY_SECONDS)
    """Default of `backoff_min_seconds`."""

    subscription_backoff_max_seconds: int = Field(300, ge=0, le=MAX_DELAY_SECONDS)
    """Default of `backoff_max_seconds`; not less than the minimum."""

    publish_max_messages: int = Field(1000, ge=1, le=100000)
    """Messages in one publish; a larger one gets 413."""

    schema_max_bytes: int = Field(65536, ge=1024, le=1048576)
    """Size of a topic's JSON Schema; a larger one gets 422."""

    filter_max_bytes: int = Field(65536, ge=1024, le=1048576)
    """Size of a subscription's filter; a larger one gets 422."""

    payload_max_depth: int = Field(64, ge=1, le=500)
    """Levels of nesting in a payload; a deeper one gets 422."""

    pull_max_waiting: int = Field(10000, ge=0, le=1000000)
    """Pulls and streams that may wait for messages at the same time in a worker; more get 503."""

    pull_max_bytes: int = Field(10485760, ge=1024, le=1073741824)
    """Size of the payloads in one pull; the first message always comes."""

    settle_max_ids: int = Field(1000, ge=1, le=100000)
    """Ids in one ack, nack, reject, extension, reprocess or purge; more get 413."""

    idempotency_window_seconds: int = Field(86400, ge=1, le=2592000)
    """How long an `Idempotency-Key` is remembered."""

    stream_max_open: int = Field(10000, ge=0, le=1000000)
    """Streams that may be open in a worker; more get 503."""

    stream_max_buffer_bytes: int = Field(1048576, ge=1024, le=1073741824)
    """Messages in memory for a slow listener of a topic; beyond that it reads from the database at its own pace."""

    stream_heartbeat_seconds: float = Field(15.0, ge=0.05, le=3600)
    """The longest time between two signs of life of an open stream."""

    wake_poll_seconds: float = Field(5.0, ge=0.05, le=3600)
    """How often a server checks for messages that waiting consumers missed; without `LISTEN` at most 0.5 seconds."""

    queue_max_messages: int = Field(20000, ge=1)
    """Messages that may wait for the database, per topic or subscription and kind of call in a worker; more get 503."""

    queue_max_bytes: int = Field(67108864, ge=1024)
    """Size of the messages that may wait for the database, in the same way."""

    api_debug: bool = False
    """Whether answers to internal errors contain the traceback; never set it where strangers can reach the server."""

    api_host: str = Field("0.0.0.0", min_length=1)  # noqa: S104 - the spec's default, with a loud warning
    """The address to listen on; `127.0.0.1` for this machine only."""

    api_port: int = Field(8000, ge=0, le=65535)
    """The port to listen on."""

    api_num_workers: int = Field(1, ge=1, le=256)
    """Processes of gunicorn."""

    api_max_body_bytes: int = Field(10485760, ge=1024, le=1073741824)
    """Size of the body of a publish; a larger one gets 413. Other bodies have [smaller limits](../http.md#limits), and
    never more than this.
    """

    api_max_header_bytes: int = Field(32768, ge=1024, le=1048576)
    """Size of the first line and the headers of a request; more get 431."""

    api_max_headers: int = Field(100, ge=10, le=10000)
    """Headers of a request; more get 431."""

    api_header_timeout_seconds: float = Field(10.0, gt=0, le=600)
    """How long the headers may take to arrive; then the connection is closed."""

    api_body_timeout_seconds: float = Field(60.0, gt=0, le=3600)
    """How long the body may take to arrive after the headers; then the connection is closed."""

    api_keep_alive_seconds: int = Field(65, ge=1, le=3600)
    """How long an idle connection stays open; set it longer than that of the load balancer in front."""

    api_shutdown_delay_seconds: float = Field(0.0, ge=0, le=300)
    """How long the server still answers everything after SIGTERM, with readiness at 503; gives a load balancer time to
    notice.
    """

    api_shutdown_grace_seconds: int = Field(20, ge=1, le=3600)
    """How long requests in flight may take after the delay."""

    api_forwarded_allow_ips: Annotated[str, AfterValidator(check_addresses)] = ""
    """Proxies whose `X-Forwarded-Proto` and `X-Forwarded-For` are trusted: addresses or networks, separated by commas,
    or `*` for all.
    """

    api_allowed_hosts: Annotated[str, AfterValidator(check_hosts)] = ""
    """Without authentication: names other than `localhost` that requests may have in `Host`, and hosts of pages whose
    requests are answered; names with or without a port, separated by commas. See
    [authentication](../authentication.md#without-authentication).
    """

    api_docs_enabled: bool = True
    """Whether there are `/docs`, `/redoc`, `/openapi.json` and `/guide`."""

    console_enabled: bool = True
    """Whether there is the [console](../console.md), at `/console`."""

    auth_enabled: bool = False
    """Whether requests need access tokens."""

    auth_secret_key: SecretStr | None = None
    """Signs access tokens, the same on all servers; `fastpubsub generate_secret_key` makes one. Text of at least 32
    bytes (HS384: 48, HS512: 64), or for ES256 and EdDSA a private key in PEM form, whose line ends may be written as
    `\\n`.
    """

    auth_verification_keys: SecretStr | None = None
    """Tokens that these keys signed are accepted as well; see [changing the
    key](../authentication.md#changing-the-key). Keys of the same kind, separated by spaces; of ES256 and EdDSA PEMs one
    after the other, for which public halves are enough.
    """

    auth_algorithm: Literal["HS256", "HS384", "HS512", "ES256", "EdDSA"] = "HS256"
    """The algorithm of the signature; that of `EdDSA` is Ed25519."""

    auth_issuer: Annotated[str, AfterValidator(check_issuer)] | None = None
    """The address at which clients reach the server, the same on all servers: `https://` or `http://`, up to 255
    characters, no `/` at its end. With it, the server serves [metadata](../authentication.md#finding-the-endpoints),
    and tokens name it.
    """

    auth_access_token_expire_minutes: int = Field(30, ge=1, le=525600)
    """Lifetime of an access token."""

    auth_max_failures_per_client: int = Field(20, ge=0, le=1000000)
    """Wrong secrets a minute for one client from one address, in one process; more get 429. 0: no limit."""

    auth_max_failures_per_address: int = Field(100, ge=0, le=1000000)
    """Wrong secrets a minute from one address, in one process; more get 429. 0: no limit. Behind a proxy that
    `FASTPUBSUB_API_FORWARDED_ALLOW_IPS` does not name, all requests come from one address.
    """

    cleanup_acked_messages_older_than_seconds: int = Field(3600, ge=0, le=315360000)
    """How long settled messages are kept after their publishing, unless their topic has its own `retention_seconds`."""

    cleanup_stuck_messages_lock_timeout_seconds: int = Field(60, ge=1, le=43200)
    """Default of `ack_deadline_seconds` of subscriptions."""

    lease_expiry_interval_seconds: float = Field(1.0, ge=0.05, le=3600)
    """How often a server releases messages past their ack deadline."""

    outbox_poll_interval_seconds: float = Field(0.05, ge=0.005, le=60)
    """How often one of the servers checks for messages that were [published from SQL](../sql.md)."""

    delayed_max_overdue_seconds: int = Field(21600, ge=60, le=315360000)
    """When no server ran for longer than this, delayed messages that are overdue by more are held until they are
    [released](../operations.md#delayed-messages-that-are-held), and times of schedules are
    [given up](../operations.md#schedules-after-a-restore).
    """

    trim_interval_seconds: float = Field(10.0, ge=0.05, le=86400)
    """How often a server deletes settled messages that are old enough."""

    push_enabled: bool = True
    """Whether `fastpubsub server` pushes; turn it off where `fastpubsub push` does it."""

    push_secret_key: Annotated[SecretStr, AfterValidator(check_push_key)] | None = None
    """Seals the secrets and the headers of endpoints: 32 characters or more. Separate several keys by commas: the first
    one seals, and all of them open. Without a key nothing is pushed; see [push](../push.md#turning-it-on).
    """

    push_allow_http: bool = False
    """Whether endpoints may begin with `http://`."""

    push_allow_networks: Annotated[str, AfterValidator(check_networks)] = ""
    """Networks that are not public and may be pushed to, such as `10.0.0.0/8`, separated by commas."""

    push_allow_ports: Annotated[str, AfterValidator(check_ports)] = "443,8443"
    """Ports that may be pushed to, separated by commas, or `*` for all."""

    push_certificates_folder: Annotated[str, AfterValidator(check_folder)] = ""
    """A folder with certificates that are shown to endpoints: see [push](../push.md#mutual-tls)."""

    push_attempts_retention_seconds: int = Field(86400, ge=0, le=31536000)
    """How long the outcome of each push is kept; 0 keeps none."""

    push_max_in_flight: int = Field(100, ge=1, le=10000)
    """Pushes that may be in flight at the same time in a worker."""

    push_max_per_second: int = Field(500, ge=1, le=1000000)
    """Pushes a second of a worker of `fastpubsub server`, which leaves time for the API; `fastpubsub push` has no such
    limit.
    """

    refused_retention_seconds: int = Field(2592000, ge=0, le=315360000)
    """How long messages from SQL that do not match the schema of their topic are kept; 30 days by default."""

    audit_retention_seconds: int = Field(7776000, ge=0, le=315360000)
    """How long `GET /audit` remembers who changed what; 90 days by default."""

    metrics_token: Annotated[SecretStr, AfterValidator(check_token)] | None = None
    """A token of 16 to 512 letters, digits and `-._~+/` that may read `/metrics` and nothing else. Without it, with
    authentication on, only programs on this machine and access tokens with `metrics:read` may; see
    [authentication](../authentication.md#metrics).
    """

    metrics_max_subscriptions: int = Field(1000, ge=0, le=100000)
    """Subscriptions, and topics, with their own lines in `/metrics`; the counters of others are summed as `(rest)`."""

    traces_enabled: bool = False
    """Whether requests and calls of the database have spans, which are sent by OTLP: see [traces](../tracing.md). Needs
    the extra `otel`.
    """

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.subscription_backoff_max_seconds < self.subscription_backoff_min_seconds:
            raise ValueError(
                f"{PREFIX}SUBSCRIPTION_BACKOFF_MAX_SECONDS: {self.subscription_backoff_max_seconds} is less than "
                f"{PREFIX}SUBSCRIPTION_BACKOFF_MIN_SECONDS, which is {self.subscription_backoff_min_seconds}"
            )
        if self.auth_enabled:
            self.auth_keys()
        if self.traces_enabled and not can_trace():
            raise ValueError(
                f"{PREFIX}TRACES_ENABLED: the OpenTelemetry SDK is not installed; install the extra `otel`, as with: "
                "pip install 'fastpubsub-server[otel]'"
            )
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
        return [key.strip() for key in _text(self.push_secret_key).split(",")] if self.push_secret_key else []

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
    return ("a whole number" if field.annotation is int else "a number") + bounds(field)


def bounds(field: FieldInfo) -> str:
    """What a number may be, to be read after its kind."""
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
