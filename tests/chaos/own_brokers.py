"""Brokers of a test's own, to be killed and started again: what runs on the machine is everybody's."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from msgspec import Struct

from tests.brokers import SERVERS, BrokerStandIn
from tests.brokers.servers import Server


class Own(Struct):
    """A broker, and what befalls it: `strike` returns when it is up again."""

    stand_in: BrokerStandIn
    strike: Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def own_broker(broker: str, folder: Path) -> AsyncIterator[Own]:
    made, _ = SERVERS[broker]
    server = Server(broker, folder)
    try:
        await server.start()
        stand_in = made(server.url)
        await stand_in.start()
        yield Own(stand_in, server.strike)
        await stand_in.cleanup()
    finally:
        server.stop()
