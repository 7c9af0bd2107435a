"""Tokens that a server must not take, and what they are made with."""

import base64
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import jwt

KEY = "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6"
"""The one of the spec: 32 bytes, the fewest that are accepted."""

CLIENT_ID = UUID("550e8400-e29b-41d4-a716-446655440000")


def now() -> int:
    return int(time.time())


def good_claims() -> dict[str, Any]:
    at = now()
    return {
        "iss": "fastpubsub",
        "aud": "fastpubsub",
        "sub": str(CLIENT_ID),
        "exp": at + 60,
        "iat": at,
        "jti": "1",
        "scope": "topics:read",
        "version": 1,
    }


def sign(headers: dict[str, Any] | None = None, key: str = KEY, algorithm: str = "HS256", **changes: Any) -> bytes:
    return jwt.PyJWT().encode(good_claims() | changes, key, algorithm, headers).encode()


def encoded(value: object) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def unsigned(algorithm: object) -> bytes:
    return b".".join([encoded({"alg": algorithm, "typ": "JWT"}), encoded(good_claims()), b""])


def resigned(payload: bytes, header: object | None = None) -> bytes:
    """Any bytes, with a signature that is right."""
    signing_input = b".".join([encoded(header or {"alg": "HS256", "typ": "JWT"}), encoded(payload)])
    algorithm = jwt.get_algorithm_by_name("HS256")
    return signing_input + b"." + encoded(algorithm.sign(signing_input, algorithm.prepare_key(KEY)))


def tampered() -> bytes:
    header, payload, signature = sign().split(b".")
    claims = json.loads(base64.urlsafe_b64decode(payload + b"=="))
    return b".".join([header, encoded(claims | {"scope": "*"}), signature])


def without(name: str) -> bytes:
    claims = good_claims()
    del claims[name]
    return jwt.PyJWT().encode(claims, KEY).encode()


ATTACKS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no token": lambda: b"abc",
    "two parts": lambda: b"a.b",
    "five parts": lambda: b"a.b.c.d.e",
    "not ASCII": lambda: b"\xc3\xa9.a.a",
    "not base64": lambda: b"!!!." + sign().split(b".", 1)[1],
    "header is a list": lambda: b".".join([encoded([]), *sign().split(b".")[1:]]),
    "header is deep": lambda: b".".join([encoded(b"[" * 3000), *sign().split(b".")[1:]]),
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None"),
    "alg nOnE": lambda: unsigned("nOnE"),
    "alg null": lambda: unsigned(None),
    "alg list": lambda: unsigned(["HS256"]),
    "alg none with the signature": lambda: unsigned("none") + sign().split(b".")[2],
    "another algorithm of the family": lambda: sign(algorithm="HS512", key=KEY * 2),
    "RS256": lambda: unsigned("RS256") + b"AAAA",
    "another key": lambda: sign(key="z" * 32),
    "no signature": lambda: sign().rsplit(b".", 1)[0] + b".",
    "half a signature": lambda: sign()[:-20],
    "other claims": tampered,
    "expired": lambda: sign(exp=now() - 1),
    "expires now": lambda: sign(exp=now()),
    "not yet valid": lambda: sign(nbf=now() + 600),
    "exp is text": lambda: sign(exp=str(now() + 60)),
    "exp is a fraction": lambda: sign(exp=now() + 60.5),
    "exp is a list": lambda: sign(exp=[now() + 60]),
    "exp is infinite": lambda: resigned(json.dumps(good_claims() | {"exp": float("inf")}).encode()),
    "exp is huge": lambda: resigned(json.dumps(good_claims()).encode().replace(b'"exp": ', b'"exp": 1e4000, "x": ')),
    "wrong issuer": lambda: sign(iss="somebody"),
    "wrong audience": lambda: sign(aud="somebody"),
    "several audiences": lambda: sign(aud=["fastpubsub", "somebody"]),
    "wrong type": lambda: sign(headers={"typ": "at+jwt"}),
    "sub is no UUID": lambda: sign(sub="admin"),
    "sub is a number": lambda: sign(sub=1),
    "scope is a list": lambda: sign(scope=["*"]),
    "version is text": lambda: sign(version="1"),
    "version is true": lambda: sign(version=True),
    "jti is a number": lambda: sign(jti=1),
    "critical header": lambda: sign(headers={"crit": ["exp"]}),
    "detached payload": lambda: sign(headers={"b64": False, "crit": ["b64"]}),
    "kid is a number": lambda: resigned(json.dumps(good_claims()).encode(), {"alg": "HS256", "typ": "JWT", "kid": 1}),
    "kid of no key": lambda: sign(headers={"kid": "file:///dev/null"}),
    "kid is nothing": lambda: sign(headers={"kid": ""}),
    "payload is a list": lambda: resigned(b"[]"),
    "payload is no JSON": lambda: resigned(b"{"),
    "payload is not UTF-8": lambda: resigned(b'{"iss": "\xff"}'),
    "payload is deep": lambda: resigned(b"[" * 3000),
} | {f"no {name}": partial(without, name) for name in good_claims()}
