"""Sends over every broker: says when to connect, what is allowed, and what a fault means.

A command is published with its broker's confirmation, the same body and the same headers as over HTTP. That the broker
has it is `completed` or only `accepted`, as the target's `complete_on` says. A broker's own deduplication, where it has
one, is given the command's key, so that a repeat within its window does not even reach the target.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from connect.brokers import Address, BrokerMisconfigured, BrokerUnavailable, parse_address
from connect.dispatch.command import headers, signing_key
from connect.dispatch.targets.guard import refusal
from connect.lifecycle import Accepted, Answer, Completed, Misconfigured, Outcome, Retriable
from connect.model import ClaimedCommand, Target

BATCH_MAX: Final = 100


class Parcel(Struct, frozen=True):
    """One command as it goes to a broker."""

    command: ClaimedCommand
    body: bytes
    headers: dict[str, str]

    @property
    def key(self) -> str:
        """The idempotency key."""
        return str(self.command.id)

    @property
    def broker_key(self) -> str:
        """Returns what the broker drops repeats by. A command that was confirmed and is asked about again gets through.

        Failed sendings before this one are `retries`: where there were no others, an earlier one of the same key may
        have arrived after all.
        """
        asked_again = self.command.n > self.command.retries + 1
        return f"{self.key}.{self.command.n}" if asked_again else self.key


class Published(Struct, frozen=True):
    """Tells what a broker says of one parcel that it confirmed."""

    excerpt: str | None = None


Confirmed = list[Published | Outcome | None]
"""A place for each parcel: what the broker confirmed, why it refused, or None while neither is known."""


async def await_confirmed(answers: Sequence["asyncio.Future[Published | Outcome]"], confirmed: Confirmed) -> None:
    """Awaits one answer a parcel, all together; what is known is filled in even where the time runs out meanwhile.

    Raises what one of them raised, rather what somebody has to mend.
    """
    faults: list[BaseException] = []
    try:
        await asyncio.gather(*answers, return_exceptions=True)
    finally:
        for index, answer in enumerate(answers):
            if not answer.done() or answer.cancelled():
                continue
            if (fault := answer.exception()) is None:
                confirmed[index] = answer.result()
            else:
                faults.append(fault)
    if faults:
        raise max(faults, key=lambda fault: isinstance(fault, BrokerMisconfigured))


class BrokerTransport(ABC):
    """One target's connection to its broker, opened at the first sending and again after a fault."""

    batch_max = BATCH_MAX

    def __init__(self, target: Target) -> None:
        """Raises `SettingsError` on an address or a secret that cannot work."""
        self.target = target
        self.address: Address = parse_address(target.url)
        self._keys = [signing_key(secret) for secret in target.secret]
        self._connected = False
        self._connecting = asyncio.Lock()
        wanted = target.complete_on or ("result" if target.results_url else "accepted")
        self._ended: Outcome = Accepted() if wanted == "result" else Completed()

    @abstractmethod
    async def connect(self) -> None:
        """Opens the connection; what does not exist yet is made. Raises `BrokerUnavailable`, `BrokerMisconfigured`."""

    @abstractmethod
    async def publish(self, parcels: Sequence[Parcel], confirmed: Confirmed) -> None:
        """Fills `confirmed` as the broker answers. Raises `BrokerUnavailable` when the connection cannot go on."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Lets go of the connection, whatever its state. Never raises."""

    def hosts(self) -> Sequence[str]:
        """Whom `connect` will speak to, as `host:port`; empty where that is the provider's."""
        return [self.address.host]

    async def send(self, commands: Sequence[ClaimedCommand]) -> list[Answer]:
        parcels = [self._parcel(command) for command in commands]
        confirmed: Confirmed = [None] * len(parcels)
        fault = await self._try(parcels, confirmed)
        return [self._answer(found, fault) for found in confirmed]

    async def close(self) -> None:
        await self.disconnect()

    def _parcel(self, command: ClaimedCommand) -> Parcel:
        body = command.body.encode()
        return Parcel(command, body, headers(command, body, self._keys, int(time.time())))

    async def _try(self, parcels: Sequence[Parcel], confirmed: Confirmed) -> Outcome:
        """Tries to send, and says what became of the parcels that `confirmed` says nothing of."""
        try:
            async with asyncio.timeout(self.target.timeout_s):
                await self._ready()
                await self.publish(parcels, confirmed)
        except BrokerMisconfigured as error:
            await self._drop()
            return Misconfigured(str(error))
        except BrokerUnavailable as error:
            await self._drop()
            return Retriable(str(error))
        except TimeoutError:
            await self._drop()
            return Retriable(f"{self.address.shown}: no confirmation within {self.target.timeout_s:g} s")
        return Retriable(f"{self.address.shown}: no confirmation")

    async def _ready(self) -> None:
        async with self._connecting:
            if self._connected:
                return
            await self._guard()
            async with asyncio.timeout(self.target.connect_timeout_s):
                await self.connect()
            self._connected = True

    async def _drop(self) -> None:
        if self._connecting.locked():
            return  # another sending is connecting anew already
        async with self._connecting:
            self._connected = False
            await self.disconnect()

    async def _guard(self) -> None:
        """Each address a host's name stands for must be allowed, right before it is connected to."""
        for host in self.hosts():
            name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
            try:
                found = await asyncio.get_running_loop().getaddrinfo(name.strip("[]"), port or None)
            except OSError as error:
                raise BrokerUnavailable(f"{self.address.shown}: {error}") from error
            for *_, address in found:
                if reason := refusal(str(address[0]), internal=self.target.internal):
                    raise BrokerMisconfigured(f"the address is not allowed: {reason}")

    def _answer(self, found: Published | Outcome | None, fault: Outcome) -> Answer:
        match found:
            case None:
                return Answer(outcome=fault)
            case Published(excerpt):
                return Answer(outcome=self._ended, excerpt=excerpt)
            case _:
                return Answer(outcome=found)
