"""Addresses, and which of them are of this machine alone."""

import ipaddress


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
