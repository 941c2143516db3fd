"""What is under an address, without making or changing anything there."""

from importlib import import_module
from typing import Final

from msgspec import Struct

from connect.brokers.address import Address, BrokerMisconfigured, BrokerUnavailable
from connect.errors import SettingsError

MODULES: Final = {"redis": "redis", "rabbitmq": "rabbitmq", "nats": "nats", "sqs": "sqs"}
"""By the extra that a broker's client comes with; each module has `look(address)`."""


class Look(Struct, frozen=True):
    """What is there now."""

    kind: str
    """In the broker's own word: a quorum queue, a stream ..."""
    waiting: int | None
    """Messages that wait to be acknowledged; None where there is nothing under the name yet."""
    doubt: str = ""
    """What is not as it should be, though it works."""


async def look(address: Address) -> Look:
    """Connects, looks and leaves. Raises `BrokerUnavailable`, `BrokerMisconfigured`, and `SettingsError` where its
    client is not installed."""
    try:
        module = import_module(f"connect.brokers.{MODULES[address.extra]}")
    except ImportError as error:
        raise SettingsError(
            f"{address.shown}: its client is not installed: pip install 'connect-service[{address.extra}]'"
        ) from error
    return await module.look(address)


__all__ = ["BrokerMisconfigured", "BrokerUnavailable", "Look", "look"]
