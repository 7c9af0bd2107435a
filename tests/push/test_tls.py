"""Endpoints that want to see a certificate of the server."""

import asyncio
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fastpubsub.config import Settings
from fastpubsub.push.failures import Unreachable
from fastpubsub.push.resolver import Resolver
from fastpubsub.push.tls import Tls
from fastpubsub.push.wire import Origin, Wire
from tests.api.calls import Calls, success
from tests.conftest import MakeSettings
from tests.push.endpoint import KEY, Endpoint
from tests.push.test_pushing import until_counts
from tests.push.test_wire import LOCAL, REQUEST, SECONDS

HOST = "hook.example"


class Authority:
    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self.folder = folder
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = folder / "authority.crt"
        self.certificate.write_bytes(self._signed(self._name, self._key, [], is_authority=True))

    def issue(self, host: str, folder: Path | None = None) -> tuple[Path, Path]:
        """Its certificate and its key; for a host of a service, and for this machine."""
        folder = folder or self.folder
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        names: list[x509.GeneralName] = [x509.DNSName(HOST), x509.IPAddress(ip_address("127.0.0.1"))]
        files = folder / f"{host}.crt", folder / f"{host}.key"
        files[0].write_bytes(self._signed(subject, key, names, is_authority=False))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName],
        *,
        is_authority: bool,
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Which this process and the endpoints trust."""
    made = Authority(tmp_path / "authority", "one")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "certificates"
    made.mkdir()
    return made


@pytest.fixture
def settings(make_settings: MakeSettings, folder: Path, authority: Authority) -> Settings:
    return make_settings(
        push_secret_key=KEY,
        push_allow_networks="127.0.0.0/8",
        push_allow_ports="*",
        push_certificates_folder=str(folder),
    )


def demanding(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("endpoint"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.certificate)
    return context


def wire_to(port: int, folder: Path) -> Wire:
    origin = Origin(HOST, port, is_secure=True)
    return Wire(origin, Resolver(LOCAL, lambda _: ["127.0.0.1"]), Tls(str(folder)))


async def test_the_certificate_for_the_host_is_shown(authority: Authority, folder: Path) -> None:
    authority.issue(HOST, folder)
    async with Endpoint(tls=demanding(authority)) as endpoint:
        assert (await wire_to(endpoint.port, folder).send(REQUEST, SECONDS)).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown", ["nothing", "of another authority"])
async def test_what_an_endpoint_refuses_it_has_not_seen(
    authority: Authority, folder: Path, tmp_path: Path, version: ssl.TLSVersion, shown: str
) -> None:
    """So it does not count as an attempt, though with TLS 1.3 the request is under way by then."""
    if shown != "nothing":
        Authority(tmp_path / "another", "another").issue(HOST, folder)
    context = demanding(authority)
    context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = asyncio.create_task(asyncio.to_thread(refuse, listener, context))
        with pytest.raises(Unreachable, match=r"certificate|handshake"):
            await wire_to(listener.getsockname()[1], folder).send(REQUEST, SECONDS)
        await refusing


def refuse(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Says why, as asyncio does not, and reads to the end, as services do so that the answer is not lost by a reset."""
    connection, _ = listener.accept()
    with connection.dup() as kept:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(connection, server_side=True)
        while kept.recv(1 << 16):
            pass


async def test_files_that_change_are_read_again(authority: Authority, folder: Path) -> None:
    """A pair that does not fit together is used by nobody, and the right one without a restart."""
    _, key = authority.issue(HOST, folder)
    right = key.read_bytes()
    authority.issue("other", folder)[1].replace(key)
    os.utime(key, (1, 1))
    async with Endpoint(tls=demanding(authority)) as endpoint:
        wire = wire_to(endpoint.port, folder)
        with pytest.raises(Unreachable, match="cannot use the certificate"):
            await wire.send(REQUEST, SECONDS)
        key.write_bytes(right)
        os.utime(key, (2, 2))
        assert (await wire.send(REQUEST, SECONDS)).status == 200


def test_other_hosts_see_none(authority: Authority, folder: Path) -> None:
    authority.issue(HOST, folder)
    tls = Tls(str(folder))
    assert tls.to(HOST) is tls.to(HOST) is not tls.to("other.example")
    assert tls.to("other.example") is tls.to(f"sub.{HOST}")


async def test_messages_are_pushed(authority: Authority, folder: Path, calls: Calls, client: httpx.AsyncClient) -> None:
    authority.issue("127.0.0.1", folder)
    async with Endpoint(tls=demanding(authority)) as endpoint:
        await calls.topic()
        url = f"https://127.0.0.1:{endpoint.port}/hook"
        success(await client.post("/subscriptions", json={"id": "s", "topic_id": "t", "push": {"endpoint": url}}), 201)
        await calls.publish({"n": 1})
        await endpoint.until(1)
        await until_counts(calls, (0, 0, 1, 0))
