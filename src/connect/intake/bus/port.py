"""The port that every broker's adapter stands behind, and which adapter a url picks."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from connect.brokers import Address


class Message(Struct):
    """One message as it came: nothing of it is trusted."""

    body: bytes
    attributes: Mapping[str, str] = {}
    """Headers or message attributes, names in lower case: `content-type`, `ce-id` ..."""
    handle: Any = None
    """The handle by which the message's adapter acknowledges it."""


class Bus(Protocol):
    """One stream, queue or subject, read by this process beside any number of others.

    A message that `batch` gave stays this reader's until it is acknowledged, its time runs out or the connection is
    lost; then the broker gives it again, to whomever. Every method may raise `BrokerUnavailable`; the object is then
    closed and another one opened. Made unconnected; `open` connects.
    """

    async def open(self) -> None:
        """Connects. What exists at the broker is used as it is; what does not is made with sound defaults.

        Raises `BrokerUnavailable`, also where it exists and this user may not read it.
        """
        ...

    async def batch(self, limit: int, wait_s: float) -> list[Message]:
        """Up to `limit` messages, those that others left unacknowledged among them; none came within `wait_s`: []."""
        ...

    async def ack(self, messages: Sequence[Message]) -> None:
        """Done with these, in the order `batch` gave them: the broker forgets them. Called after their COMMIT."""
        ...

    async def keep(self, messages: Sequence[Message]) -> None:
        """Still at work on these: their time runs anew. Where a broker knows no such time, nothing."""
        ...

    async def lag(self) -> int:
        """Messages that wait to be acknowledged, as the broker counts them."""
        ...

    async def close(self) -> None:
        """Leaves; what was not acknowledged goes to others. Never raises."""
        ...


def open_bus(address: Address, *, reader: str) -> Bus:
    """The adapter for this address, not yet connected. `reader` names this process among those that read with it.

    Raises `SettingsError` where the client is not installed.
    """
    return address.broker.part(address.broker.bus, address.shown)(address, reader)
