"""The settings themselves; needs no database."""

from collections.abc import Iterable, Iterator

from fastpubsub.addresses import is_loopback
from fastpubsub.config import Settings, misspelt
from fastpubsub.doctor.findings import Finding, ok, problem, warning

FEWEST_CHARACTERS = 8
"""A random key of 32 hexadecimal digits has fewer different ones once in ten million."""

EXAMPLES = ("changeme", "example", "password", "secret", "key_of_at_least")


def examine_settings(settings: Settings, environment: Iterable[str]) -> Iterator[Finding]:
    """`environment` holds the names of all variables."""
    for sentence in misspelt(environment):
        yield warning("settings", sentence, "the default is used instead", "correct the name")
    yield authentication(settings)
    if settings.auth_secret_key is not None:
        yield secret_key(settings.auth_secret_key.get_secret_value())


def authentication(settings: Settings) -> Finding:
    if settings.auth_enabled:
        return ok("authentication", "authentication is on")
    if is_loopback(settings.api_host):
        return ok("authentication", f"authentication is off, and the server listens on {settings.api_host} only")
    return warning(
        "authentication",
        f"authentication is off, and the server listens on {settings.api_host}",
        "everyone who can reach the port can read and delete everything",
        "set FASTPUBSUB_AUTH_ENABLED=true, or FASTPUBSUB_API_HOST=127.0.0.1, or block the port for other machines",
    )


def secret_key(key: str) -> Finding:
    if len(set(key)) >= FEWEST_CHARACTERS and not any(word in key.lower() for word in EXAMPLES):
        return ok("secret_key", "the secret key looks random")
    return problem(
        "secret_key",
        "the secret key is not random: it repeats a few characters or contains words of an example",
        "an attacker who guesses it can sign tokens with every scope",
        "make another with: fastpubsub generate_secret_key",
    )
