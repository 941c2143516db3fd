"""A stream, queue or subject of a test's own, with a hand on both of its ends: every stand-in for a broker has it."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from urllib.parse import SplitResult, urlsplit, urlunsplit

from connect.brokers import Address, parse_address
from tests.brokers.relay import Relay

NOTHING: Mapping[str, str] = {}


class BrokerStandIn(ABC):
    """One stream, queue or subject of this test's own, with a hand on both of its ends."""

    option = ""
    """That names it in an address."""
    many = 900
    """More than one batch brings, and no more than the server gives in a second or two."""
    in_order = True
    """It gives messages in the order in which it got them."""
    holds_connections = True
    """A reader is there as long as its connection is; without, a cut connection goes unnoticed."""

    def __init__(self, server: str) -> None:
        self.name = f"connect-test-{secrets.token_hex(6)}"
        self.server = server
        parts = urlsplit(server)
        self.relay = Relay(parts.hostname or "127.0.0.1", parts.port or 0)

    def arranged(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Fit to be compared: as they are, where order is kept."""
        return list(bodies) if self.in_order else sorted(bodies)

    @property
    def url(self) -> str:
        """Over the relay."""
        parts = urlsplit(self.server)
        credentials, at, _ = parts.netloc.rpartition("@")
        return self._named(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.relay.port}"))

    @property
    def direct_url(self) -> str:
        """Past the relay."""
        return self._named(urlsplit(self.server))

    def _named(self, parts: SplitResult) -> str:
        return f"{urlunsplit(parts._replace(path=parts.path or '/', query='', fragment=''))}?{self.option}={self.name}"

    def address(self) -> Address:
        return parse_address(self.url)

    def cut(self) -> None:
        self.relay.cut()

    async def start(self) -> None:
        await self.connect()
        await self.relay.start()

    async def cleanup(self) -> None:
        await self.relay.stop()
        await self.remove()

    async def refusing(self) -> str:
        """The url with credentials that are refused."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=f"nobody:wrong@{parts.netloc.rpartition('@')[2]}"))

    @abstractmethod
    async def connect(self) -> None: ...

    @abstractmethod
    async def remove(self) -> None: ...

    @abstractmethod
    async def take_away(self) -> None:
        """The stream or queue, as a person would who errs."""

    @abstractmethod
    async def make(self) -> None:
        """As somebody else would have made it: other than Connect does."""

    @abstractmethod
    async def as_made(self) -> bool:
        """Whether it still is."""

    @abstractmethod
    async def put(self, bodies: Sequence[bytes], headers: Mapping[str, str] = NOTHING) -> None: ...

    @abstractmethod
    async def pending(self) -> int:
        """Messages that nobody acknowledged; of a queue those that nobody holds either."""

    async def waiting(self) -> int:
        """Messages that were given to nobody yet, or that came back."""
        return await self.pending()

    @abstractmethod
    async def received(self) -> list[tuple[bytes, dict[str, str]]]:
        """Returns what a target finds: bodies and headers, names in lower case."""

    async def hasten(self) -> None:
        """Makes what is there already give up on a reader sooner, where the broker has a setting for it."""
        return

    async def half_a_while(self) -> None:
        """More than half of the time after which an untouched message goes to another reader, where there is one."""
        return

    async def give_up_on(self, reader: str) -> None:
        """Ends the time that a reader which is gone has for what it holds, where no setting shortens it."""
        return
