"""Requests as bytes: they are made once, and the load generator only sends them."""

from collections.abc import Iterable
from pathlib import Path


def request(method: str, path: str, body: bytes | None = None, headers: Iterable[str] = ()) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def publish(topic_id: str, body: bytes, headers: Iterable[str] = ()) -> bytes:
    return request("POST", f"/topics/{topic_id}/messages", body, headers)


def pull(subscription_id: str, batch_size: int, wait_seconds: int = 0) -> bytes:
    path = f"/subscriptions/{subscription_id}/messages?consumer_id=benchmark&batch_size={batch_size}"
    return request("GET", path + (f"&wait_seconds={wait_seconds}" if wait_seconds else ""))


def save(requests: Iterable[bytes], path: Path) -> Path:
    """As lua/common.lua reads them."""
    path.write_bytes(b"".join(b"%d\n%b\n" % (len(one), one) for one in requests))
    return path
