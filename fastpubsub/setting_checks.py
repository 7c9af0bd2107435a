"""What the value of a single setting must look like; each check says what is wrong, and shows how it is written."""

import logging
import re
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path

from pydantic import SecretStr

from fastpubsub.addresses import parse_networks
from fastpubsub.log_lines import LineFormatter
from fastpubsub.sealing import MIN_KEY_CHARACTERS

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


def check_database_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(DATABASE_SCHEMES):
        raise ValueError("the address does not start with postgresql:// or postgresql+psycopg://")
    return url


def check_issuer(issuer: str) -> str:
    if not ISSUER.fullmatch(issuer) or len(issuer) > LONGEST_ISSUER:
        raise ValueError(
            "this is not the address of a server, such as https://bus.example or https://example.com/bus, without a "
            f"slash at its end and of up to {LONGEST_ISSUER} characters"
        )
    return issuer


def check_log_formatter(formatter: str) -> str:
    record = logging.makeLogRecord({"msg": "m", "levelname": "INFO", "pathname": "p", "lineno": 1})
    try:
        LineFormatter(formatter).format(record)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"this is not a format of Python's logging such as 'message=%(message)s': {error}") from None
    return formatter


def check_hosts(hosts: str) -> str:
    for host in hosts.split(",") if hosts else ():
        if not HOST.fullmatch(host.strip()):
            raise ValueError(
                f"{host.strip()[:LONGEST_ECHO]!r} is neither a name such as bus.example nor one with a port such as "
                "localhost:3000; write them separated by commas, without http://"
            )
    return hosts


def check_token(token: SecretStr) -> SecretStr:
    if not TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError(
            "this is not a token of 16 to 512 letters, digits and '-', '.', '_', '~', '+', '/'; make one with: "
            "fastpubsub generate_secret_key"
        )
    return token


def check_addresses(addresses: str) -> str:
    for address in [] if addresses.strip() in ("", "*") else addresses.split(","):
        try:
            ip_network(address.strip())
        except ValueError:
            raise ValueError(
                f"{address.strip()[:LONGEST_ECHO]!r} is neither an address such as 10.0.0.7 nor a network such as "
                "10.0.0.0/8; write the proxies separated by commas, or * alone to trust every address"
            ) from None
    return addresses.strip()


def check_networks(networks: str) -> str:
    try:
        parse_networks(networks)
    except ValueError as error:
        raise ValueError(
            "this is not a list of networks such as 10.0.0.0/8,fd00::/8, separated by commas: "
            f"{str(error)[:LONGEST_ECHO]}"
        ) from None
    return networks


def check_ports(ports: str) -> str:
    for port in [] if ports == "*" else ports.split(","):
        if not (port.strip().isascii() and port.strip().isdigit() and 0 < int(port) <= MAX_PORT):
            raise ValueError(
                f"{port.strip()[:LONGEST_ECHO]!r} is not a port between 1 and {MAX_PORT}; write them separated by "
                "commas, or * alone for all"
            )
    return ports


def check_folder(folder: str) -> str:
    if folder and not Path(folder).is_dir():
        raise ValueError(f"there is no folder {folder[:LONGEST_ECHO]!r} that this process may see")
    return folder


def check_push_key(keys: SecretStr) -> SecretStr:
    if not all(len(key.strip()) >= MIN_KEY_CHARACTERS for key in keys.get_secret_value().split(",")):
        raise ValueError(
            f"a key has at least {MIN_KEY_CHARACTERS} characters; make one with: fastpubsub generate_secret_key"
        )
    return keys


def can_trace() -> bool:
    try:
        return bool(find_spec("opentelemetry.sdk.trace") and find_spec("opentelemetry.exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        return False
