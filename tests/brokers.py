"""The brokers that run here, each behind a relay that tests may cut: streams, queues and subjects of a test's own."""

import asyncio
import os
import secrets
import shutil
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import nats
import pytest
from aiormq.connection import Connection
from nats.js import api
from nats.js.errors import NotFoundError
from pamqp.commands import Basic
from redis.asyncio import Redis

from connect.brokers import Address, parse_address
from tests.conftest import eventually, free_port

REDIS = os.environ.get("CONNECT_TEST_REDIS_URL", "redis://127.0.0.1:6379/0")
RABBITMQ = os.environ.get("CONNECT_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/")
NATS = os.environ.get("CONNECT_TEST_NATS_URL", "nats://127.0.0.1:4222")
NOTHING: Mapping[str, str] = {}


class Relay:
    """A port of our own that leads to a broker, and that can be taken away and given back."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self.port = free_port()
        self.silent = False
        """What is sent vanishes, and nobody is told."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Breaks every connection; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        """Gone: connections break and new ones are refused until `start`."""
        if self._server is not None:
            self._server.close()
            self.cut()
            await self._server.wait_closed()
            self._server = None

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._to)
        except OSError:
            writer.close()
            return
        both = {writer, back}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(65_536):
                if not self.silent:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


class BrokerStandIn(ABC):
    """One stream, queue or subject of this test's own, with a hand on both of its ends."""

    option = ""
    """That names it in an address."""

    def __init__(self, server: str) -> None:
        self.name = f"connect-test-{secrets.token_hex(6)}"
        self.server = server
        parts = urlsplit(server)
        self.relay = Relay(parts.hostname or "127.0.0.1", parts.port or 0)

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
        """What a target finds: bodies and headers, names in lower case."""

    async def hasten(self) -> None:
        """What is there already gives up on a reader sooner, where the broker has a setting for it."""
        return

    async def half_a_while(self) -> None:
        """More than half of the time after which an untouched message goes to another reader, where there is one."""
        return

    async def give_up_on(self, reader: str) -> None:
        """Ends the time that a reader which is gone has for what it holds, where no setting shortens it."""
        return


class RedisStandIn(BrokerStandIn):
    option = "stream"

    async def connect(self) -> None:
        self.client: Any = Redis.from_url(self.server)

    async def remove(self) -> None:
        await self.take_away()
        await self.client.aclose()

    async def take_away(self) -> None:
        await self.client.delete(self.name)

    async def make(self) -> None:
        await self.client.xgroup_create(self.name, "connect", id="0", mkstream=True)

    async def as_made(self) -> bool:
        return len(await self.client.xinfo_groups(self.name)) == 1

    async def put(self, bodies: Sequence[bytes], headers: Mapping[str, str] = NOTHING) -> None:
        pipe = self.client.pipeline()
        for body in bodies:
            pipe.xadd(self.name, {"event": body, **headers})
        await pipe.execute()

    async def pending(self) -> int:
        [group] = await self.client.xinfo_groups(self.name)
        return group["pending"] + group["lag"]

    async def waiting(self) -> int:
        [group] = await self.client.xinfo_groups(self.name)
        return group["lag"]

    async def received(self) -> list[tuple[bytes, dict[str, str]]]:
        found = []
        for _, fields in await self.client.xrange(self.name):
            body = fields.pop(b"command")
            found.append((body, {name.decode().lower(): value.decode() for name, value in fields.items()}))
        return found

    async def give_up_on(self, reader: str) -> None:
        held = await self.client.xpending_range(self.name, "connect", "-", "+", 10_000, consumername=reader)
        if ids := [entry["message_id"] for entry in held]:
            await self.client.xclaim(self.name, "connect", reader, 0, ids, idle=31_000, justid=True)

    async def half_a_while(self) -> None:
        for entry in await self.client.xpending_range(self.name, "connect", "-", "+", 1000):
            idle = entry["time_since_delivered"] + 20_000
            await self.client.xclaim(
                self.name, "connect", entry["consumer"], 0, [entry["message_id"]], idle=idle, justid=True
            )


class RabbitMqStandIn(BrokerStandIn):
    option = "queue"
    MADE: Mapping[str, Any] = {"x-max-length": 12_345}

    async def connect(self) -> None:
        self.client = Connection(self.server)
        await self.client.connect()

    async def remove(self) -> None:
        await self.take_away()
        await self.client.close()

    async def take_away(self) -> None:
        channel = await self.client.channel()
        await channel.queue_delete(self.name)
        await channel.close()

    async def make(self) -> None:
        channel = await self.client.channel()
        await channel.queue_declare(self.name, durable=True, arguments=dict(self.MADE))
        await channel.close()

    async def as_made(self) -> bool:
        await self.make()  # which is refused where the arguments differ
        return True

    async def put(self, bodies: Sequence[bytes], headers: Mapping[str, str] = NOTHING) -> None:
        channel: Any = await self.client.channel()
        properties = Basic.Properties(headers=dict(headers), delivery_mode=2)
        sent = [
            channel.basic_publish(body, routing_key=self.name, properties=properties, wait=False) for body in bodies
        ]
        await asyncio.gather(*sent)
        await channel.close()

    async def pending(self) -> int:
        channel = await self.client.channel()
        declared = await channel.queue_declare(self.name, passive=True)
        await channel.close()
        return declared.message_count or 0

    async def received(self) -> list[tuple[bytes, dict[str, str]]]:
        channel = await self.client.channel()
        found = []
        while (got := await channel.basic_get(self.name, no_ack=True)).message_count is not None:
            properties: Any = got.header.properties
            assert (properties.delivery_mode, properties.content_type) == (2, "application/json")
            assert properties.headers["Idempotency-Key"] == f'"{properties.message_id}"'
            found.append((got.body, {name.lower(): value for name, value in properties.headers.items()}))
        await channel.close()
        return found


class NatsStandIn(BrokerStandIn):
    option = "subject"
    ACK_WAIT_S = 2.0

    refuses: asyncio.subprocess.Process | None = None

    async def connect(self) -> None:
        self.client = await nats.connect(self.server)
        self.streams: Any = self.client.jetstream()

    async def remove(self) -> None:
        await self.take_away()
        await self.client.close()
        if self.refuses is not None:
            self.refuses.terminate()
            await self.refuses.wait()

    async def take_away(self) -> None:
        with suppress(NotFoundError):
            await self.streams.delete_stream(await self.streams.find_stream_name_by_subject(self.name))

    async def refusing(self) -> str:
        """A server that runs without accounts takes any password: this one is its own."""
        program = shutil.which("nats-server")
        if program is None:
            pytest.skip("no nats-server program to start one that has a password")
        port = free_port()
        options = ["-a", "127.0.0.1", "-p", str(port), "--user", "somebody", "--pass", "right"]
        self.refuses = await asyncio.create_subprocess_exec(program, *options, stderr=asyncio.subprocess.DEVNULL)
        await eventually(lambda: answers("127.0.0.1", port))
        return f"nats://nobody:wrong@127.0.0.1:{port}?subject={self.name}"

    async def make(self) -> None:
        subjects = [self.name, f"{self.name}.others"]
        await self.streams.add_stream(name=f"{self.name}-made", subjects=subjects, max_msgs=12_345)

    async def as_made(self) -> bool:
        config = (await self.streams.stream_info(f"{self.name}-made")).config
        return (config.max_msgs, config.retention) == (12_345, api.RetentionPolicy.LIMITS)

    async def put(self, bodies: Sequence[bytes], headers: Mapping[str, str] = NOTHING) -> None:
        for body in bodies:
            await self.streams.publish(self.name, body, headers=dict(headers) or None)

    async def pending(self) -> int:
        info = await self._consumer()
        return info.num_pending + info.num_ack_pending

    async def waiting(self) -> int:
        return (await self._consumer()).num_pending

    async def received(self) -> list[tuple[bytes, dict[str, str]]]:
        stream = await self.streams.find_stream_name_by_subject(self.name)
        state = (await self.streams.stream_info(stream)).state
        found = []
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await self.streams.get_msg(stream, sequence)
            found.append((message.data, {name.lower(): value for name, value in message.headers.items()}))
        return found

    async def half_a_while(self) -> None:
        await self.hasten()
        until = time.monotonic() + 0.6 * self.ACK_WAIT_S
        await eventually(lambda: time.monotonic() > until)

    async def hasten(self) -> None:
        """The consumer that is there waits no longer than `ACK_WAIT_S` for an acknowledgement."""
        info = await self._consumer()
        if info.config.ack_wait != self.ACK_WAIT_S:
            await self.streams.add_consumer(info.stream_name, info.config.evolve(ack_wait=self.ACK_WAIT_S))

    async def _consumer(self) -> Any:
        stream = await self.streams.find_stream_name_by_subject(self.name)
        return await self.streams.consumer_info(stream, f"connect-{self.name}")


STAND_INS: Mapping[str, tuple[type[BrokerStandIn], str]] = {
    "redis": (RedisStandIn, REDIS),
    "rabbitmq": (RabbitMqStandIn, RABBITMQ),
    "nats": (NatsStandIn, NATS),
}


def answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


@asynccontextmanager
async def standing_in_for(broker: str) -> AsyncGenerator[BrokerStandIn]:
    made, server = STAND_INS[broker]
    parts = urlsplit(server)
    if not answers(parts.hostname or "", parts.port or 0):
        pytest.skip(f"no {broker} answers at {parts.hostname}:{parts.port}")
    stand_in = made(server)
    await stand_in.start()
    try:
        yield stand_in
    finally:
        await stand_in.cleanup()
