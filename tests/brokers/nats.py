"""A subject of NATS JetStream."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import nats
from nats.js import api
from nats.js.errors import NotFoundError

from tests.brokers.port import NOTHING, BrokerStandIn
from tests.brokers.relay import answers
from tests.brokers.servers import PROGRAMS, unavailable
from tests.conftest import eventually, free_port


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
        program, port = PROGRAMS["nats"].path(), free_port()
        if program is None:
            unavailable("no nats-server program to start one that has a password")
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
