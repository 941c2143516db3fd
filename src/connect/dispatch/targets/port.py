"""The port that every transport stands behind, and which one a target's url picks."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from connect.errors import SettingsError
from connect.lifecycle import Answer
from connect.model import ClaimedCommand, Target


class Transport(Protocol):
    """Sends one target's commands. Made unconnected; it connects at its first sending, and again when it has to."""

    batch_max: int
    """Commands that one `send` may carry."""

    async def send(self, commands: Sequence[ClaimedCommand]) -> list[Answer]:
        """One answer a command, in their order, within the target's `timeout_s`.

        Never raises for what the target, its broker or the network does: that is an answer.
        """
        ...

    async def close(self) -> None: ...


TRANSPORTS: Final = {
    "sqs": ("connect.dispatch.targets.sqs", "SqsTransport", "sqs"),
    "http": ("connect.dispatch.targets.http", "HttpTransport", ""),
    "https": ("connect.dispatch.targets.http", "HttpTransport", ""),
    "redis": ("connect.dispatch.targets.redis_streams", "RedisStreamTransport", "redis"),
    "rediss": ("connect.dispatch.targets.redis_streams", "RedisStreamTransport", "redis"),
    "amqp": ("connect.dispatch.targets.rabbitmq", "RabbitMqTransport", "rabbitmq"),
    "amqps": ("connect.dispatch.targets.rabbitmq", "RabbitMqTransport", "rabbitmq"),
    "nats": ("connect.dispatch.targets.jetstream", "JetStreamTransport", "nats"),
    "tls": ("connect.dispatch.targets.jetstream", "JetStreamTransport", "nats"),
}
"""By scheme: module, class and the extra its client comes with; imported at first use."""


def open_transport(target: Target) -> Transport:
    """The transport for this target. Raises `SettingsError` on an address, a secret or a client that cannot work."""
    scheme = urlsplit(target.url).scheme
    if scheme not in TRANSPORTS:
        raise SettingsError(f"{target!r}: a url starts with one of {', '.join(sorted(TRANSPORTS))} (then ://)")
    module, name, extra = TRANSPORTS[scheme]
    try:
        made: Any = getattr(import_module(module), name)
    except ImportError as error:
        raise SettingsError(
            f"{target!r}: its client is not installed: pip install 'connect-service[{extra}]'"
        ) from error
    return made(target)
