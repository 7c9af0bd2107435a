"""What an endpoint can be, and which headers it can have."""

import pytest
from pydantic import ValidationError

from fastpubsub.config import Settings
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.models import NewPush
from fastpubsub.push.endpoints import allowed_place

OURS = [
    *("Host", "content-length", "CONTENT-TYPE", "Transfer-Encoding", "connection", "keep-alive", "te", "trailer"),
    *("upgrade", "expect", "proxy-authorization", "accept-encoding", "webhook-id", "Webhook-Signature", "ce-id"),
    *("fastpubsub-attempt",),
]


def refusal(**push: object) -> str:
    with pytest.raises(ValidationError) as refused:
        NewPush.model_validate({"endpoint": "https://example.com/hook", **push})
    return str(refused.value)


@pytest.mark.parametrize("name", OURS)
def test_headers_of_the_server(name: str) -> None:
    assert f"the header {name} is the server's own; leave it out" in refusal(headers={name: "x"})


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "é", "a" * 101])
def test_names_that_no_header_has(name: str) -> None:
    assert "the name of header 1 is not" in refusal(headers={name: "x"})


@pytest.mark.parametrize("value", ["", " x", "x ", "a\r\nb: c", "a\x00", "é", "secret" * 1000])
def test_values_that_no_header_has(value: str) -> None:
    said = refusal(headers={"X-Key": value})
    assert "the value of header 1 is not" in said
    assert "secretsecret" not in said.partition("[type")[0]


@pytest.mark.parametrize("endpoint", ["ftp://x/", "https://u:p@x/", "https://x/#f", "https:///x", "x", "https://x/\n"])
def test_what_is_no_endpoint(endpoint: str) -> None:
    assert "this is not an address such as https://example.com/hook" in refusal(endpoint=endpoint)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_ports_that_do_not_exist(port: int) -> None:
    settings = Settings(_env_file=None, database_url="postgresql://nowhere/nothing", push_allow_ports="*")
    with pytest.raises(InvalidRequest, match="a port or an address that does not exist"):
        allowed_place(f"https://example.com:{port}/", settings)
