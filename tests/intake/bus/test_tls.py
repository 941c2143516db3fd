"""Brokers over TLS, both ways: who is trusted is connected to, and who is not is for a person to mend."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connect.brokers import BrokerMisconfigured, parse_address
from connect.intake.bus import open_bus
from connect.lifecycle import Completed, Misconfigured
from tests.brokers.servers import More, Server
from tests.conftest import free_port
from tests.dispatch.sending import commands, outcomes, sending_to

CERTIFICATE, KEY = "certificate.pem", "key.pem"


def certify(folder: Path) -> Path:
    """A certificate for 127.0.0.1, signed by its own key: whoever trusts it trusts the server."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a broker of tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / CERTIFICATE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / KEY).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / CERTIFICATE


def redis(port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    files = ["--tls-cert-file", str(folder / CERTIFICATE), "--tls-key-file", str(folder / KEY)]
    return ["--port", "0", "--tls-port", str(port), *files, "--tls-auth-clients", "no"], {}


def nats(port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    return ["--tls", "--tlscert", str(folder / CERTIFICATE), "--tlskey", str(folder / KEY)], {}


def rabbitmq(port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    (folder / "rabbitmq.conf").write_text(
        f"listeners.ssl.default = 127.0.0.1:{port}\nssl_options.certfile = {folder / CERTIFICATE}\n"
        f"ssl_options.keyfile = {folder / KEY}\nssl_options.verify = verify_none\n"
        "ssl_options.fail_if_no_peer_cert = false\n"
    )
    return [], {"RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"), "RABBITMQ_NODE_PORT": str(free_port())}


OVER_TLS: Mapping[str, tuple[More, str]] = {
    "redis": (redis, "rediss://127.0.0.1:{port}/0?stream=over-tls"),
    "nats": (nats, "tls://127.0.0.1:{port}?subject=over-tls"),
    "rabbitmq": (rabbitmq, "amqps://guest:guest@127.0.0.1:{port}/?queue=over-tls"),
}


@asynccontextmanager
async def serving(broker: str, folder: Path) -> AsyncGenerator[str]:
    more, url = OVER_TLS[broker]
    server = Server(broker, folder, more)
    try:
        await server.start()
        yield url.format(port=server.port)
    finally:
        server.stop()


@pytest.mark.parametrize("broker", OVER_TLS)
async def test_a_certificate_that_the_machine_trusts_connects_and_another_is_told(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    certificate = certify(tmp_path)
    async with serving(broker, tmp_path) as url:
        bus = open_bus(parse_address(url), reader="one")
        with pytest.raises(BrokerMisconfigured, match=r"SSL_CERT_FILE"):
            await bus.open()
        await bus.close()
        async with sending_to(url) as transport:
            [outcome] = outcomes(await transport.send(commands(1)))
        assert isinstance(outcome, Misconfigured), outcome
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        bus = open_bus(parse_address(url), reader="one")
        await bus.open()
        async with sending_to(url) as transport:
            assert outcomes(await transport.send(commands(1))) == [Completed()]
        assert await bus.lag() == 1
        await bus.close()
