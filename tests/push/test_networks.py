"""Where nothing is pushed to, however it is written."""

import ipaddress
import socket
from typing import Any

import httpx
import pytest

from fastpubsub.addresses import may_reach, parse_networks
from fastpubsub.push import resolver, wire
from tests.api.calls import Calls
from tests.push.endpoint import Endpoint
from tests.push.test_pushing import until_counts, until_status

REFUSED_IPV4 = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
]
REFUSED_IPV6 = [
    "::",
    "::1",
    "::8.8.8.8",
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",
    "2001:0:808:808::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2600::5efe:127.0.0.1",
    "2600::200:5efe:10.0.0.1",
    "3fff::1",
    "4000::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
REACHED = [
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "2600::1",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("address", REACHED)
def test_the_internet_is_reached(address: str) -> None:
    assert may_reach(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", REFUSED_IPV4)
@pytest.mark.parametrize("spelling", ["{}", "::ffff:{}", "::{}", "64:ff9b::{}", "64:ff9b:1::{}", "2600::5efe:{}"])
def test_what_is_not_of_the_internet(address: str, spelling: str) -> None:
    assert not may_reach(ipaddress.ip_address(spelling.format(address)))


@pytest.mark.parametrize("address", REFUSED_IPV4)
def test_inside_of_6to4(address: str) -> None:
    number = int(ipaddress.IPv4Address(address))
    assert not may_reach(ipaddress.IPv6Address(0x2002 << 112 | number << 80))


@pytest.mark.parametrize("address", REFUSED_IPV6)
def test_ipv6_that_is_not_of_the_internet(address: str) -> None:
    assert not may_reach(ipaddress.ip_address(address))


def test_what_python_calls_private_is_refused() -> None:
    """A look at our list with the eyes of another one: each of its networks, at both ends."""
    for network in ipaddress._IPv4Constants._private_networks:  # type: ignore[attr-defined]
        assert not may_reach(network[0])
        assert not may_reach(network[-1])


def test_networks_that_are_allowed() -> None:
    allowed = parse_networks("10.0.0.0/8, fd00::/8")
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1"):
        assert may_reach(ipaddress.ip_address(address), allowed)
    for address in ("127.0.0.1", "::1", "::10.1.2.3", "2002:a01:203::", "fe80::1"):
        assert not may_reach(ipaddress.ip_address(address), allowed)


async def test_a_name_that_changes_its_mind(
    calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the endpoint was set, and after messages went there: it is judged at each connection."""
    monkeypatch.setattr(resolver, "REMEMBERED_SECONDS", 0.0)
    monkeypatch.setattr(wire, "MAX_AGE_SECONDS", 0.0)
    address, usual = "127.0.0.1", socket.getaddrinfo

    def found(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        return usual(address if host == "mind.example" else host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    await calls.topic()
    push = {"endpoint": f"http://mind.example:{endpoint.port}/hook"}
    await calls.subscription(push=push, backoff_min_seconds=0, backoff_max_seconds=0)
    await calls.publish({"n": 1})
    await until_counts(calls, (0, 0, 1, 0))
    address = "169.254.169.254"
    await calls.publish({"n": 2})
    status = await until_status(client, breaker="open")
    assert status["last_failure"].startswith("mind.example is at an address that is not of the internet")
    assert len(endpoint.received) == 1
    address = "127.0.0.1"
    await until_counts(calls, (0, 0, 2, 0))
    assert [one.headers["fastpubsub-attempt"] for one in endpoint.received] == ["1", "1"]
    assert endpoint.received[1].headers["host"] == f"mind.example:{endpoint.port}"
