"""Addresses, and which of them are of this machine alone."""

import ipaddress
from collections.abc import Iterable


def is_loopback(host: str) -> bool:
    """An address, or `localhost`; what is neither is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PRIVATE_IPV4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # the host of a virtual machine at Azure
        "169.254.0.0/16",  # link-local, and the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
"""What the registry of IANA keeps out of the internet, and what answers there but is not of it."""

PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
PRIVATE_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo and other protocols
        "2001:db8::/32",
        "2002::/16",  # IPv4 in IPv6 (6to4)
        "3fff::/20",
    )
)
TRANSLATED = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))
"""Packets to these go to the IPv4 address at their end."""

ISATAP = 0x00005EFE
"""Before the IPv4 address at the end of an IPv6 address; a bit of it tells local from global ones."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Raises ValueError with what is not a network."""
    return tuple(ipaddress.ip_network(one.strip()) for one in text.split(",") if one.strip())


def may_reach(address: Address, allowed: Iterable[Network] = ()) -> bool:
    """Whether it is of the internet, or in one of the allowed networks; in whatever way an IPv4 address is written."""
    meant = _translated(address)
    return any(meant.version == network.version and meant in network for network in allowed) or _is_public(meant)


def _translated(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and any(address in network for network in TRANSLATED):
        return _last_bits(address)
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in PRIVATE_IPV4)
    if int(address) >> 32 & 0xFFFFFFFF & ~0x03000000 == ISATAP:
        return False
    return (
        address.scope_id is None and address in PUBLIC_IPV6 and not any(address in network for network in PRIVATE_IPV6)
    )


def _last_bits(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
