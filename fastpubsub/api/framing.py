"""Heads that two servers on the way could read differently are refused (RFC 9112, sections 3.2 and 6.1)."""

import re
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

MAX_PIPELINED = 100
"""Requests of a connection that wait for the answer to an earlier one."""

HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Refusal:
    """An application that answers so, and ends the connection: nothing that follows on it can be trusted."""

    status: int
    phrase: str
    text: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(self.text)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.text.encode()})

    @property
    def written(self) -> bytes:
        """Refuses in plain text, because there is no request to answer."""
        return (
            f"HTTP/1.1 {self.status} {self.phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(self.text)}\r\nconnection: close\r\n\r\n{self.text}"
        ).encode()


def bad_request(text: str) -> Refusal:
    return Refusal(400, "Bad Request", text)


TOO_LARGE = Refusal(431, "Request Header Fields Too Large", "The request line and headers are too long.")
TOO_MANY = Refusal(
    429,
    "Too Many Requests",
    f"More than {MAX_PIPELINED} requests wait for an answer on this connection; read the answers before sending more.",
)
ONE_HOST = bad_request("A request must have exactly one Host: a name or an address, with or without a port.")
OTHER_HOST = bad_request("The Host is not that of the address in the request line.")
OLD_CODING = bad_request("A request of HTTP/1.0 cannot have a Transfer-Encoding.")
UNKNOWN_CODING = Refusal(501, "Not Implemented", "The only supported Transfer-Encoding is chunked.")
NOT_ALONE = bad_request("A WebSocket cannot be opened while its connection still answers another request.")


def judge(version: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
    """`headers`: at least those that decide, which are `host` and `transfer-encoding`."""
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not HOST.fullmatch(value):
                return ONE_HOST
            if not target.startswith((b"/", b"*")) and _authority(target) != value.lower():
                return OTHER_HOST
        elif name == b"transfer-encoding":
            if version != "1.1":
                return OLD_CODING
            if value.strip().lower() != b"chunked":
                return UNKNOWN_CODING
    return ONE_HOST if hosts > 1 or (hosts == 0 and version == "1.1") else None


def _authority(target: bytes) -> bytes | None:
    found = ABSOLUTE.match(target)
    return found and found[1].lower()
