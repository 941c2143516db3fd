"""Addresses of streams, queues and subjects: one url says which broker, where, and what on it."""

from importlib import import_module
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from msgspec import Struct

from connect.errors import SettingsError


class BrokerUnavailable(ConnectionError):
    """The broker does not answer, or refuses what is asked of it: whoever asked closes, waits and opens anew."""


class BrokerMisconfigured(BrokerUnavailable):
    """The broker stays unavailable until somebody mends a password, a permission, an argument or what has the name."""


class Broker(Struct, frozen=True, kw_only=True):
    """A kind of broker: how its urls are written, and where the parts that speak to it are (`module:name`)."""

    form: str
    names: str
    """The option that names the stream, queue or subject; "" where the path does."""
    options: frozenset[str]
    extra: str
    """The optional dependencies that its client comes with."""
    look: str
    bus: str
    transport: str

    def part(self, place: str, shown: str) -> Any:
        """Imports a part at its first use, so that a client is needed only where it is used.

        Raises `SettingsError` where the client is not installed; `shown` names the address in it.
        """
        module, _, name = place.partition(":")
        try:
            return getattr(import_module(module), name)
        except ImportError as error:
            raise SettingsError(
                f"{shown}: its client is not installed: pip install 'connect-service[{self.extra}]' ({error})"
            ) from error


REDIS: Final = Broker(
    form="redis://host:6379/0?stream=NAME",
    names="stream",
    options=frozenset({"group", "maxlen"}),
    extra="redis",
    look="connect.brokers.redis:look",
    bus="connect.intake.bus.redis_streams:RedisStreamBus",
    transport="connect.dispatch.targets.redis_streams:RedisStreamTransport",
)
RABBITMQ: Final = Broker(
    form="amqp://user:password@host/vhost?queue=NAME",
    names="queue",
    options=frozenset(),
    extra="rabbitmq",
    look="connect.brokers.rabbitmq:look",
    bus="connect.intake.bus.rabbitmq:RabbitMqBus",
    transport="connect.dispatch.targets.rabbitmq:RabbitMqTransport",
)
SQS: Final = Broker(
    form="sqs://region/queue-name?endpoint=URL",
    names="",
    options=frozenset({"endpoint"}),
    extra="sqs",
    look="connect.brokers.sqs:look",
    bus="connect.intake.bus.sqs:SqsBus",
    transport="connect.dispatch.targets.sqs:SqsTransport",
)
NATS: Final = Broker(
    form="nats://host:4222?subject=NAME",
    names="subject",
    options=frozenset({"stream", "durable"}),
    extra="nats",
    look="connect.brokers.nats:look",
    bus="connect.intake.bus.jetstream:JetStreamBus",
    transport="connect.dispatch.targets.jetstream:JetStreamTransport",
)

BROKERS: Final = {
    "sqs": SQS,
    "redis": REDIS,
    "rediss": REDIS,
    "amqp": RABBITMQ,
    "amqps": RABBITMQ,
    "nats": NATS,
    "tls": NATS,
}
"""By scheme; `rediss`, `amqps` and `tls` are those over TLS."""
BROKER_SCHEMES: Final = frozenset(BROKERS)


class Address(Struct, frozen=True, kw_only=True):
    """One stream, queue or subject of one broker."""

    scheme: str
    url: str
    """The address that the client connects to, without the parts that are ours. It may hold a password."""
    host: str
    name: str
    """The name of the stream (Redis), queue (RabbitMQ, SQS) or subject (NATS)."""
    options: dict[str, str] = {}

    @property
    def broker(self) -> Broker:
        return BROKERS[self.scheme]

    @property
    def shown(self) -> str:
        """For logs and people: without user and password."""
        return f"{self.scheme}://{self.host}/{self.name}"

    def __repr__(self) -> str:
        return f"Address({self.shown})"


def parse_address(url: str) -> Address:
    """Reads a broker's url. Raises `SettingsError` that says what its form is; never repeats a password."""
    scheme = url.partition("://")[0]
    if scheme not in BROKERS:
        raise SettingsError(f"a broker's url starts with one of {', '.join(sorted(BROKERS))} (then ://)")
    broker = BROKERS[scheme]
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        given = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise SettingsError(f"a {scheme} url that cannot be read; its form is {broker.form}") from error
    name = given.pop(broker.names, "") if broker.names else unquote(parts.path.strip("/"))
    if not host or not name:
        raise SettingsError(f"a {scheme} url needs {'a host' if not host else 'a name'}; its form is {broker.form}")
    if unknown := sorted(given.keys() - broker.options):
        known = ", ".join(sorted({broker.names, *broker.options} - {""}))
        raise SettingsError(f"a {scheme} url has no option {unknown[0]!r} (it has: {known}); its form is {broker.form}")
    server = urlunsplit((scheme, parts.netloc, parts.path, "", ""))
    return Address(scheme=scheme, url=server, host=parts.netloc.rpartition("@")[2], name=name, options=given)


def trouble(address: Address, error: BaseException, *, ours: bool = False) -> BrokerUnavailable:
    """Turns a client's error into ours; `ours`: somebody has to mend something, as with an unknown certificate."""
    untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
    hint = " (SSL_CERT_FILE names the file of a certificate authority of your own)" if untrusted else ""
    kind = BrokerMisconfigured if ours or untrusted else BrokerUnavailable
    return kind(f"{address.shown}: {type(error).__name__}: {error}{hint}")
