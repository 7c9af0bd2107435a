"""The keys of access tokens: what is taken as one, how they are changed, and what others may know of them."""

import json
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from fastpubsub.config import Settings
from fastpubsub.exceptions import Unauthenticated
from fastpubsub.services.tokens import Signer, make_signer
from fastpubsub.signing_keys import signing_key, verification_keys
from tests import harness
from tests.attacks import CLIENT_ID, KEY, good_claims
from tests.conftest import MakeSettings

OLD, NEW = "old-" * 8, "new-" * 8


def pem(key: Any, encryption: KeySerializationEncryption | None = None) -> str:
    made: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return made.decode()


def public_pem(key: Any) -> str:
    made: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made.decode()


ED25519, ED25519_OLD = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())
PAIRS = {"EdDSA": ED25519, "ES256": P256}


def server(key: str, others: str = "", algorithm: str = "HS256") -> Signer:
    signer = make_signer(settings(key, others, algorithm))
    assert signer is not None
    return signer


def settings(key: str, others: str = "", algorithm: str = "HS256") -> Settings:
    return Settings(
        _env_file=None,
        auth_enabled=True,
        auth_secret_key=key,
        auth_verification_keys=others,
        auth_algorithm=algorithm,
    )


def takes(checking: Signer, signing: Signer) -> bool:
    try:
        return checking.verify(signing.sign(CLIENT_ID, "topics:read", 1).encode()).caller.client_id == str(CLIENT_ID)
    except Unauthenticated:
        return False


@pytest.mark.parametrize(
    ("old", "new", "algorithm"),
    [
        (OLD, NEW, "HS256"),
        (pem(ED25519_OLD), pem(ED25519), "EdDSA"),
        (pem(ec.generate_private_key(ec.SECP256R1())), pem(P256), "ES256"),
    ],
    ids=["HS256", "EdDSA", "ES256"],
)
def test_changing_the_key_refuses_nobody(old: str, new: str, algorithm: str) -> None:
    """As docs/authentication.md says; at each step servers of the step before run too."""
    steps = [
        server(old, "", algorithm),
        server(old, new, algorithm),
        server(new, old, algorithm),
        server(new, "", algorithm),
    ]
    for before, after in [(steps[0], steps[1]), (steps[1], steps[2])]:
        assert all(takes(one, other) for one in (before, after) for other in (before, after))
    assert takes(steps[2], steps[3])
    assert takes(steps[3], steps[2])
    assert not takes(steps[3], steps[0]), "what was removed is no longer good"
    assert not takes(steps[0], steps[3]), "nor what is not there yet"


def test_a_token_says_which_key_it_needs() -> None:
    both = server(NEW, OLD)
    kid = jwt.get_unverified_header(both.sign(CLIENT_ID, "*", 1))["kid"]
    assert kid == signing_key(NEW, "HS256").kid
    # One of the old key under the name of the new one.
    forged = jwt.encode(good_claims(), OLD, "HS256", {"kid": kid}).encode()
    with pytest.raises(Unauthenticated):
        both.verify(forged)
    unnamed = jwt.encode(good_claims(), NEW, "HS256").encode()
    assert both.verify(unnamed).caller.client_id == str(CLIENT_ID)
    with pytest.raises(Unauthenticated):
        both.verify(jwt.encode(good_claims(), OLD, "HS256").encode())


def test_the_name_of_a_secret_tells_nothing_of_it() -> None:
    kids = {signing_key(key, "HS256").kid for key in (OLD, NEW, KEY)}
    assert len(kids) == 3
    assert all(len(kid) == 16 and kid not in OLD + NEW + KEY for kid in kids)


@pytest.mark.parametrize("algorithm", PAIRS)
def test_the_public_half_checks(algorithm: str) -> None:
    signer = server(pem(PAIRS[algorithm]), algorithm=algorithm)
    token = signer.sign(CLIENT_ID, "topics:read", 1)
    (public,) = jwt.PyJWKSet.from_dict({"keys": signer.public_keys}).keys
    header = jwt.get_unverified_header(token)
    assert (header["kid"], header["alg"]) == (public.key_id, algorithm)
    assert jwt.decode(token, public, [algorithm], audience="fastpubsub")["sub"] == str(CLIENT_ID)
    assert "d" not in signer.public_keys[0]
    # The known confusion: the public key as if it were a secret.
    for text in (public_pem(PAIRS[algorithm]), json.dumps(signer.public_keys[0])):
        parts = jwt.PyJWT().encode(good_claims(), "k" * 32, "HS256", {"kid": header["kid"]}).rsplit(".", 1)
        hmac = jwt.get_algorithm_by_name("HS256")
        signature = jwt.utils.base64url_encode(hmac.sign(parts[0].encode(), text.encode())).decode()
        with pytest.raises(Unauthenticated):
            signer.verify(f"{parts[0]}.{signature}".encode())


def test_keys_on_one_line() -> None:
    text = pem(ED25519).replace("\n", "\\n")
    others = (public_pem(ED25519_OLD) + pem(ED25519)).replace("\n", "\\n")
    signer = server(text, others, "EdDSA")
    assert takes(signer, server(pem(ED25519_OLD), "", "EdDSA"))
    assert len(signer.public_keys) == 2


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (KEY, "EdDSA"),
        ("", "ES256"),
        (public_pem(ED25519), "EdDSA"),
        (pem(P256), "EdDSA"),
        (pem(ED25519), "ES256"),
        (pem(ed448.Ed448PrivateKey.generate()), "EdDSA"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "ES256"),
        (pem(rsa.generate_private_key(65537, 2048)), "ES256"),
        (pem(ED25519, BestAvailableEncryption(b"password")), "EdDSA"),
        (pem(ED25519)[:60], "EdDSA"),
    ],
    ids=["a secret", "nothing", "a public key", "P-256", "Ed25519", "Ed448", "P-384", "RSA", "encrypted", "cut"],
)
def test_what_is_no_key(key: str, algorithm: str) -> None:
    with pytest.raises(ValueError, match=r"FASTPUBSUB_AUTH_SECRET_KEY: .*; make one with: openssl") as raised:
        settings(key, algorithm=algorithm)
    assert not key or key.splitlines()[-1] not in str(raised.value)
    assert make_signer(Settings(_env_file=None, auth_secret_key=key, auth_algorithm=algorithm)) is None


@pytest.mark.parametrize(("others", "algorithm"), [("short", "HS256"), (f"{OLD} short", "HS256"), (OLD, "EdDSA")])
def test_what_is_no_other_key(others: str, algorithm: str) -> None:
    key = NEW if algorithm == "HS256" else pem(ED25519)
    with pytest.raises(ValueError, match="FASTPUBSUB_AUTH_VERIFICATION_KEYS: ") as raised:
        settings(key, others, algorithm)
    assert "short" not in str(raised.value)
    assert OLD not in str(raised.value)


def test_secrets_are_separated_by_spaces() -> None:
    assert len(verification_keys(f"  {OLD} {NEW}\n", "HS256")) == 2
    assert verification_keys(" ", "HS256") == verification_keys(" ", "EdDSA") == []


def test_without_a_pair_nothing_is_public() -> None:
    assert Signer([signing_key(KEY, "HS256")], "HS256", timedelta(1)).public_keys == []


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(KEY, "HS256"), (pem(ED25519), "EdDSA"), (None, "HS256")],
    ids=["a secret", "a pair", "no authentication"],
)
async def test_the_key_set(make_settings: MakeSettings, key: str | None, algorithm: str) -> None:
    made = make_settings(auth_enabled=key is not None, auth_secret_key=key, auth_algorithm=algorithm)
    async with harness.opened(made) as client:
        response: httpx.Response = await client.get("/.well-known/jwks.json")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "public, max-age=300"
    keys = response.json()["keys"]
    if algorithm == "HS256":
        assert keys == []
    else:
        (public,) = keys
        assert public.keys() == {"kty", "crv", "x", "kid", "use", "alg"}
        assert (public["kty"], public["crv"], public["use"], public["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")
