"""The port that every transport stands behind, and which one a target's url picks."""

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from connect.brokers import BROKER_SCHEMES
from connect.brokers.address import BROKERS
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


HTTP_SCHEMES = frozenset({"http", "https"})


def open_transport(target: Target) -> Transport:
    """The transport for this target. Raises `SettingsError` on an address, a secret or a client that cannot work."""
    scheme = urlsplit(target.url).scheme
    if broker := BROKERS.get(scheme):
        return broker.part(broker.transport, repr(target))(target)
    if scheme not in HTTP_SCHEMES:
        known = ", ".join(sorted(BROKER_SCHEMES | HTTP_SCHEMES))
        raise SettingsError(f"{target!r}: a url starts with one of {known} (then ://)")
    from connect.dispatch.targets.http import HttpTransport  # its client takes a while to import

    return HttpTransport(target)
