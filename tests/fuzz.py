"""schemathesis with all its checks, against a server: what the OpenAPI document says is what the server does."""

import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("schemathesis")
PATIENT = ("--request-timeout=60", "--suppress-health-check=too_slow")
"""With a busy machine, which answers and makes requests slowly."""

CONFIGURATION = Path(__file__).parent / "api" / "schemathesis.toml"


def command(base_url: str, examples: int, seed: int, token: str | None = None) -> list[str]:
    options = ["--checks=all", f"--max-examples={examples}", f"--seed={seed}", "--continue-on-failure", "--no-color"]
    if token is not None:
        options.append(f"--header=Authorization:Bearer {token}")
    return [
        str(PROGRAM),
        f"--config-file={CONFIGURATION}",
        "run",
        f"{base_url}/openapi.json",
        "--warnings=off",
        *PATIENT,
        *options,
    ]
