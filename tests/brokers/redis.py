"""A stream of Redis."""

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from tests.brokers.port import NOTHING, BrokerStandIn


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
