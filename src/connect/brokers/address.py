"""Addresses of streams, queues and subjects: one url says which broker, where, and what on it."""

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from msgspec import Struct

from connect.errors import SettingsError


class BrokerUnavailable(ConnectionError):
    """The broker does not answer, or refuses what is asked of it: whoever asked closes, waits and opens anew."""


class BrokerMisconfigured(BrokerUnavailable):
    """The same until somebody mends a password, a permission, an argument or what stands under the name."""


class _Form(Struct, frozen=True):
    """How a broker's urls are written."""

    form: str
    names: str
    """The option that names the stream, queue or subject; "" where the path does."""
    options: frozenset[str]
    extra: str
    """The optional dependencies its client comes with."""


REDIS: Final = _Form("redis://host:6379/0?stream=NAME", "stream", frozenset({"group", "maxlen"}), "redis")
RABBITMQ: Final = _Form("amqp://user:password@host/vhost?queue=NAME", "queue", frozenset(), "rabbitmq")
SQS: Final = _Form("sqs://region/queue-name?endpoint=URL", "", frozenset({"endpoint"}), "sqs")
NATS: Final = _Form("nats://host:4222?subject=NAME", "subject", frozenset({"stream", "durable"}), "nats")

FORMS: Final = {
    "sqs": SQS,
    "redis": REDIS,
    "rediss": REDIS,
    "amqp": RABBITMQ,
    "amqps": RABBITMQ,
    "nats": NATS,
    "tls": NATS,
}
"""By scheme; `rediss`, `amqps` and `tls` are the same over TLS."""
BROKER_SCHEMES: Final = frozenset(FORMS)


class Address(Struct, frozen=True, kw_only=True):
    """One stream, queue or subject of one broker."""

    scheme: str
    url: str
    """What the client connects to: the address without what is ours. It may hold a password."""
    host: str
    name: str
    """Of the stream (Redis), queue (RabbitMQ, SQS) or subject (NATS)."""
    options: dict[str, str] = {}

    @property
    def extra(self) -> str:
        """The optional dependencies that reaching it needs: `connect-service[extra]`."""
        return FORMS[self.scheme].extra

    @property
    def shown(self) -> str:
        """For logs and people: without user and password."""
        return f"{self.scheme}://{self.host}/{self.name}"

    def __repr__(self) -> str:
        return f"Address({self.shown})"


def parse_address(url: str) -> Address:
    """Reads a broker's url. Raises `SettingsError` that says what its form is; never repeats a password."""
    scheme = url.partition("://")[0]
    if scheme not in FORMS:
        raise SettingsError(f"a broker's url starts with one of {', '.join(sorted(FORMS))} (then ://)")
    form = FORMS[scheme]
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        given = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise SettingsError(f"a {scheme} url that cannot be read; its form is {form.form}") from error
    name = given.pop(form.names, "") if form.names else unquote(parts.path.strip("/"))
    if not host or not name:
        raise SettingsError(f"a {scheme} url needs {'a host' if not host else 'a name'}; its form is {form.form}")
    if unknown := sorted(given.keys() - form.options):
        known = ", ".join(sorted({form.names, *form.options} - {""}))
        raise SettingsError(f"a {scheme} url has no option {unknown[0]!r} (it has: {known}); its form is {form.form}")
    server = urlunsplit((scheme, parts.netloc, parts.path, "", ""))
    return Address(scheme=scheme, url=server, host=parts.netloc.rpartition("@")[2], name=name, options=given)


def trouble(address: Address, error: BaseException, *, ours: bool = False) -> BrokerUnavailable:
    """What an error of a client comes to; `ours`: somebody has to mend something, as with an unknown certificate."""
    untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
    hint = " (SSL_CERT_FILE names the file of a certificate authority of your own)" if untrusted else ""
    kind = BrokerMisconfigured if ours or untrusted else BrokerUnavailable
    return kind(f"{address.shown}: {type(error).__name__}: {error}{hint}")
