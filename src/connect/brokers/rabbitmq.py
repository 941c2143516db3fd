"""RabbitMQ: a connection, a queue, and what its errors mean.

The bare client (aiormq) and not aio-pika over it: whoever uses a connection here closes it at a fault and opens
another, and knows better than the client what to do in between.
"""

import asyncio
import contextlib
from collections.abc import Generator
from typing import Any, Final
from urllib.parse import urlencode

from aiormq import exceptions
from aiormq.connection import Connection

from connect.brokers.address import Address, BrokerMisconfigured, BrokerUnavailable, trouble
from connect.brokers.look import Look

HEARTBEAT_S: Final = 10
"""A connection that is dead without having been closed is noticed within about three of these."""
CLOSE_S: Final = 1.0
"""Patience for a goodbye; a broker that does not answer it notices anyhow."""
DELIVERY_LIMIT: Final = 100_000
"""Deliveries of one message before the queue drops it. RabbitMQ 4 says 20 where nobody does, and a kill of a consumer
counts as one, so that a process that starts over all night would lose facts. What cannot be read we tell apart
ourselves, at its first delivery."""
QUEUE_ARGUMENTS: Final[dict[str, Any]] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}

OURS: Final = (
    exceptions.AuthenticationError,
    exceptions.ProbableAuthenticationError,
    exceptions.ConnectionNotAllowed,
    exceptions.ChannelAccessRefused,
    exceptions.ChannelLockedResource,
)
"""Errors that somebody has to mend: a password, a permission, a virtual host, a queue that is another's alone."""


async def open_connection(address: Address, *, connect_timeout_s: float = 5.0) -> Any:
    """An `aiormq.connection.Connection` that is not made again when it breaks.

    Raises `BrokerUnavailable`, `BrokerMisconfigured`.
    """
    connection: Any = Connection(f"{address.url}?{urlencode({'heartbeat': HEARTBEAT_S, 'name': 'connect'})}")
    with broker_errors(address):
        try:
            async with asyncio.timeout(connect_timeout_s):
                await connection.connect()
        except exceptions.InvalidFrameError as error:
            if "Connection.Close" not in str(error):
                raise
            raise BrokerMisconfigured(
                f"{address.shown}: closed at opening the virtual host: does it exist, and may this user use it?"
            ) from error
    return connection


async def close_connection(connection: Any) -> None:
    """Never raises, and takes no longer than `CLOSE_S`."""
    with contextlib.suppress(exceptions.AMQPError, OSError, TimeoutError, RuntimeError):
        async with asyncio.timeout(CLOSE_S):
            # said with an error of its own, since the client's default cancels whoever waits for something
            await connection.close(exceptions.ConnectionClosed(200, "closed by us"))


async def ensure_queue(connection: Any, address: Address) -> None:
    """Uses a queue that exists under the name as it is; where none does, makes a durable quorum queue."""
    with broker_errors(address):
        channel = await connection.channel(publisher_confirms=False)
        try:
            await channel.queue_declare(address.name, passive=True)
        except exceptions.ChannelNotFoundEntity:  # which closed the channel
            channel = await connection.channel(publisher_confirms=False)
            await channel.queue_declare(address.name, durable=True, arguments=QUEUE_ARGUMENTS)
        await channel.close()


@contextlib.contextmanager
def broker_errors(address: Address) -> Generator[None]:
    """Errors of the client as `BrokerUnavailable` or, where somebody has to mend something, `BrokerMisconfigured`."""
    try:
        yield
    except BrokerUnavailable:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise told(address, error) from error  # the client cancels what waits on a connection that breaks
    except (exceptions.AMQPError, OSError, TimeoutError, RuntimeError, ValueError) as error:
        raise told(address, error) from error


def told(address: Address, error: BaseException) -> BrokerUnavailable:
    """Turns an error of the client into ours."""
    return trouble(address, error, ours=isinstance(error, OURS))


async def look(address: Address) -> Look:
    """The queue, and what is ready in it; what is with a consumer RabbitMQ tells its management only."""
    connection = await open_connection(address)
    try:
        with broker_errors(address):
            channel = await connection.channel(publisher_confirms=False)
            try:
                found = await channel.queue_declare(address.name, passive=True)
            except exceptions.ChannelNotFoundEntity:
                return Look("queue", None)
    finally:
        await close_connection(connection)
    return Look("queue", int(found.message_count or 0))
