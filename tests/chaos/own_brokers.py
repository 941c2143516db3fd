"""Brokers of a test's own, to be killed and started again: what runs on the machine is everybody's."""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from msgspec import Struct

from tests.brokers import RABBITMQ, BrokerStandIn, NatsStandIn, RabbitMqStandIn, RedisStandIn, answers
from tests.conftest import eventually, free_port

ANSWERS_WITHIN_S = 30


class Own(Struct):
    """A broker, and what befalls it: `strike` returns when it is up again."""

    stand_in: BrokerStandIn
    strike: Callable[[], Awaitable[None]]


class Server:
    """A program with a port and a folder that outlive its deaths."""

    def __init__(self, program: str, port: int, arguments: Sequence[str], folder: Path) -> None:
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"no {program} program to start one that may be killed")
        self._command = [found, *arguments]
        self._port, self._folder = port, folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, cwd=self._folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        await eventually(lambda: answers("127.0.0.1", self._port), ANSWERS_WITHIN_S)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def strike(self) -> None:
        """kill -9, and another start on what lies in its folder."""
        await self.kill()
        await self.start()


@contextlib.asynccontextmanager
async def own_redis(folder: Path) -> AsyncIterator[Own]:
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", "", "--dir", str(folder)]
    async with _running(
        Server("redis-server", port, options, folder), RedisStandIn(f"redis://127.0.0.1:{port}/0")
    ) as own:
        yield own


class KilledNatsStandIn(NatsStandIn):
    """What a server counts as on its way and gives to nobody is not counted.

    2.9.10, killed while acknowledgements come in, may keep one of those it has for ever: with a request that stands and
    all of its messages stored, it gave nothing for a minute and a half. What a reader really holds is given again
    after `ACK_WAIT_S`.
    """

    given_to_nobody = 0

    async def pending(self) -> int:
        info = await self._consumer()
        quiet_s = (datetime.now(UTC) - info.delivered.last_active).total_seconds()
        if info.num_waiting and not info.num_pending and quiet_s > 3 * self.ACK_WAIT_S:
            self.given_to_nobody = info.num_ack_pending
        return info.num_pending + max(info.num_ack_pending - self.given_to_nobody, 0)


@contextlib.asynccontextmanager
async def own_nats(folder: Path) -> AsyncIterator[Own]:
    port = free_port()
    options = ["-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "jetstream")]
    async with _running(
        Server("nats-server", port, options, folder), KilledNatsStandIn(f"nats://127.0.0.1:{port}")
    ) as own:
        yield own


@contextlib.asynccontextmanager
async def _running(server: Server, stand_in: BrokerStandIn) -> AsyncIterator[Own]:
    await server.start()
    try:
        await stand_in.start()
        yield Own(stand_in, server.strike)
        await stand_in.cleanup()
    finally:
        await stand_in.relay.stop()
        await server.kill()


class VhostStandIn(RabbitMqStandIn):
    """Its own connection is closed with the others."""

    async def pending(self) -> int:
        if self.client.is_closed:
            await self.connect()
        return await super().pending()


@contextlib.asynccontextmanager
async def own_vhost(folder: Path) -> AsyncIterator[Own]:
    """Of the RabbitMQ that runs here, since another takes long to start: it closes all connections to the vhost."""
    parts = urlsplit(RABBITMQ)
    vhost = f"connect-test-{secrets.token_hex(6)}"
    if shutil.which("rabbitmqctl") is None or await _rabbitmqctl("add_vhost", vhost):
        pytest.skip("no rabbitmqctl that may make a virtual host")
    await _rabbitmqctl("set_permissions", "-p", vhost, parts.username or "guest", ".*", ".*", ".*")
    stand_in = VhostStandIn(urlunsplit(parts._replace(path=f"/{vhost}")))

    async def strike() -> None:
        assert not await _rabbitmqctl("close_all_connections", "--vhost", vhost, "a test's restart")

    try:
        await stand_in.start()
        yield Own(stand_in, strike)
    finally:
        await stand_in.relay.stop()
        await stand_in.client.close()
        await _rabbitmqctl("delete_vhost", vhost)


async def _rabbitmqctl(*arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(
        "rabbitmqctl", "-q", *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


OWN_BROKERS = {"redis": own_redis, "nats": own_nats, "rabbitmq": own_vhost}
