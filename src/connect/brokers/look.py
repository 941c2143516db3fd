"""Looks at what is under an address, without making or changing anything there."""

from msgspec import Struct

from connect.brokers.address import Address, BrokerMisconfigured, BrokerUnavailable


class Look(Struct, frozen=True):
    """A look tells what is there now."""

    kind: str
    """In the broker's own word: a quorum queue, a stream ..."""
    waiting: int | None
    """Messages that wait to be acknowledged; None where there is nothing under the name yet."""
    doubt: str = ""
    """The trouble with something that works and is not as it should be."""


async def look(address: Address) -> Look:
    """Connects, looks and leaves. Raises `BrokerUnavailable`, `BrokerMisconfigured`, and `SettingsError` where its
    client is not installed."""
    return await address.broker.part(address.broker.look, address.shown)(address)


__all__ = ["BrokerMisconfigured", "BrokerUnavailable", "Look", "look"]
