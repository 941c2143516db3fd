"""A queue of RabbitMQ."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiormq.abc import AbstractChannel
from aiormq.connection import Connection
from pamqp.commands import Basic

from tests.brokers.port import NOTHING, BrokerStandIn


class RabbitMqStandIn(BrokerStandIn):
    option = "queue"
    MADE: Mapping[str, Any] = {"x-max-length": 12_345}

    async def connect(self) -> None:
        self.client = Connection(self.server)
        await self.client.connect()

    async def _channel(self) -> AbstractChannel:
        """The connection goes with its server, and is made anew."""
        if self.client.is_closed:
            await self.connect()
        return await self.client.channel()

    async def remove(self) -> None:
        await self.take_away()
        await self.client.close()

    async def take_away(self) -> None:
        channel = await self._channel()
        await channel.queue_delete(self.name)
        await channel.close()

    async def make(self) -> None:
        channel = await self._channel()
        await channel.queue_declare(self.name, durable=True, arguments=dict(self.MADE))
        await channel.close()

    async def as_made(self) -> bool:
        await self.make()  # which is refused where the arguments differ
        return True

    async def put(self, bodies: Sequence[bytes], headers: Mapping[str, str] = NOTHING) -> None:
        channel: Any = await self._channel()
        properties = Basic.Properties(headers=dict(headers), delivery_mode=2)
        sent = [
            channel.basic_publish(body, routing_key=self.name, properties=properties, wait=False) for body in bodies
        ]
        await asyncio.gather(*sent)
        await channel.close()

    async def pending(self) -> int:
        channel = await self._channel()
        declared = await channel.queue_declare(self.name, passive=True)
        await channel.close()
        return declared.message_count or 0

    async def received(self) -> list[tuple[bytes, dict[str, str]]]:
        channel = await self._channel()
        found = []
        while (got := await channel.basic_get(self.name, no_ack=True)).message_count is not None:
            properties: Any = got.header.properties
            assert (properties.delivery_mode, properties.content_type) == (2, "application/json")
            assert properties.headers["Idempotency-Key"] == f'"{properties.message_id}"'
            found.append((got.body, {name.lower(): value for name, value in properties.headers.items()}))
        await channel.close()
        return found
