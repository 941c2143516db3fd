"""A cluster whose workers read real brokers, and reporters that put facts there until the broker has confirmed them."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiormq.exceptions import AMQPError
from nats.errors import Error as NatsError
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import RedisError

from connect.intake.bus import open_bus
from connect.intake.normalize import Terms, convert_reported, normalize
from tests.brokers import BrokerStandIn, standing_in_for
from tests.chaos.feeder import Answer, Fact, History
from tests.chaos.harness import Cluster, Void, cluster, moment
from tests.chaos.processes import Node
from tests.conftest import eventually

ROLES = "bus,decide,dispatch"
PARCEL = 100
"""Messages that a reporter puts at once."""
CONFIRMED_WITHIN_S = 90
AWAY = (AMQPError, NatsError, RedisError, OSError, TimeoutError, RuntimeError)
"""The errors that the clients of the three brokers raise while their broker is away."""
KILL = "kill with messages in hand"
SLOWER = """
CREATE FUNCTION take_a_moment() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
CREATE TRIGGER slower AFTER INSERT ON event FOR EACH STATEMENT EXECUTE FUNCTION take_a_moment();
"""
"""A trigger that slows commits as disks far away do: a kill then finds messages in hand."""
STORED = "SELECT count(*) FROM event"


class Reporter:
    """Puts facts on one bus. What the broker confirmed has to be stored at the end, under the id that is its own."""

    def __init__(self, broker: BrokerStandIn, history: History) -> None:
        self.broker, self._history = broker, history
        self.confirmed = 0
        self.interrupted = 0
        """Puts that the broker did not confirm, and that were made again."""

    async def put(self, facts: Sequence[Fact], *, parcel: int = PARCEL, over_s: float = 0) -> None:
        self._history.facts.update((fact["external_id"], fact) for fact in facts)
        begun = time.monotonic()
        for start in range(0, len(facts), parcel):
            await moment(begun + over_s * start / len(facts))
            part = facts[start : start + parcel]
            bodies = [msgspec.json.encode(fact) for fact in part]
            await eventually(lambda bodies=bodies: self._confirmed(bodies), CONFIRMED_WITHIN_S, every_s=0.1)
            self.confirmed += len(part)
            for fact in part:
                self._history.answers[fact["external_id"]].append(_confirmed(fact))

    async def _confirmed(self, bodies: Sequence[bytes]) -> bool:
        """A put that failed may have arrived in part: then the bus brings these facts twice."""
        try:
            async with asyncio.timeout(10):
                await self.broker.put(bodies)
        except AWAY:
            self.interrupted += 1
            with suppress(*AWAY):
                async with asyncio.timeout(10):
                    await self.broker.connect()
            return False
        return True


def _confirmed(fact: Fact) -> Answer:
    event = normalize(convert_reported(fact), Terms(), datetime.now(UTC)).event
    return Answer(fact["external_id"], "confirmed by the broker", str(event.id), 0)


class Buses:
    """A cluster, and for each bus its broker and a reporter."""

    def __init__(self, up: Cluster, brokers: Mapping[str, BrokerStandIn]) -> None:
        self.up, self.brokers = up, brokers
        self.reporters = {name: Reporter(broker, up.history) for name, broker in brokers.items()}

    async def put(self, facts: Sequence[Fact], **how: Any) -> None:
        """On all buses at once."""
        await asyncio.gather(*(reporter.put(facts, **how) for reporter in self.reporters.values()))

    async def kill(self, worker: Node, flow: "asyncio.Task[Any]") -> None:
        """The moment is tried: the worker stands still, and goes on where it has nothing in hand, as often as it takes.

        Not killed where the flow of facts ends before.
        """
        reader = reader_of(worker)
        await eventually(lambda: self._stands_with_messages(worker, flow), CONFIRMED_WITHIN_S)
        if not flow.done():
            await self.up.kill(worker)
            self.up.fired[KILL] += 1
            await self.given_up(reader)
        worker.go_on()

    async def _stands_with_messages(self, worker: Node, flow: "asyncio.Task[Any]") -> bool:
        worker.pause()
        if flow.done() or await self._in_hand() > 0:
            return True
        worker.go_on()
        await moment(time.monotonic() + self.up.rng.uniform(0, 0.05))
        return False

    async def _in_hand(self) -> int:
        """Messages that were given to a reader and are not stored: so many at the least, whoever else is at work."""
        confirmed = sum(reporter.confirmed for reporter in self.reporters.values())
        waiting = sum([await broker.waiting() for broker in self.brokers.values()])
        return confirmed - waiting - await self.up.pool.fetchval(STORED)

    async def given_up(self, reader: str) -> None:
        for broker in self.brokers.values():
            await broker.give_up_on(reader)

    async def stored(self, count: int, timeout_s: float = 60) -> None:
        """Returns when at least so many events are."""
        await eventually(lambda: self._holds(count), timeout_s, every_s=0.01)

    async def _holds(self, count: int) -> bool:
        return await self.up.pool.fetchval(STORED) >= count

    async def settled(self, timeout_s: float = 60) -> None:
        """Waits until all is stored, or will not be: that is the checker's to tell; and all messages acknowledged."""
        with suppress(AssertionError):
            await self.stored(len(self.up.history.facts), timeout_s)
        for broker in self.brokers.values():
            await eventually(lambda broker=broker: _empty(broker), timeout_s, every_s=0.1)

    async def finish(self, wanted: Mapping[str, int], timeout_s: float = 90) -> None:
        """Fails on what is wrong with the run, on messages that are left, and as void unless faults fired so often."""
        await self.settled(timeout_s)
        await self.up.finish(timeout_s=timeout_s)
        for worker in self.up.workers:
            await worker.stop()
        left = {name: await broker.pending() for name, broker in self.brokers.items()}
        assert not any(left.values()), f"unacknowledged messages are left: {left}"
        assert await self.up.pool.fetchval("SELECT count(*) FROM dead_event") == 0
        if missing := {kind: count for kind, count in wanted.items() if self.up.fired[kind] < count}:
            raise Void(f"void: wanted were {missing}; fired: {dict(self.up.fired)}")
        print(f"faults: {dict(self.up.fired)}; events: {await self.up.pool.fetchval(STORED)}")


async def _empty(broker: BrokerStandIn) -> bool:
    return await broker.pending() == 0


def reader_of(worker: Node) -> str:
    """As it calls itself at the broker."""
    return f"{socket.gethostname()}-{worker.pid}"


@asynccontextmanager
async def on_buses(
    database_url: str, folder: Path, *names: str, brokers: Mapping[str, BrokerStandIn] | None = None,
    workers: int = 1, start: bool = True, roles: str = ROLES, **how: Any,
) -> AsyncIterator[Buses]:  # fmt: skip
    """Workers that read the brokers called `names`, or `brokers`, each on a stream or queue made as Connect makes it.

    NATS gives up on a reader after 2 s instead of 30; what a dead reader of Redis holds is given up on at its death.
    """
    async with AsyncExitStack() as stack:
        found = dict(brokers or {}) | {name: await stack.enter_async_context(standing_in_for(name)) for name in names}
        for broker in found.values():
            await make(broker)
        environ = {f"CONNECT_BUS__{name.upper()}__URL": broker.url for name, broker in found.items()}
        up = await stack.enter_async_context(
            cluster(database_url, folder, workers=workers, start=False, **environ, **how)
        )
        for worker in up.workers:
            worker.arguments = ("--roles", roles)
        if start:
            await asyncio.gather(*(node.start() for node in up.nodes))
        yield Buses(up, found)


async def make(broker: BrokerStandIn) -> None:
    """The stream or queue, by the product's own hand, and its reader's time cut where the broker has a setting."""
    bus = open_bus(broker.address(), reader="maker")
    await bus.open()
    await bus.close()
    await broker.hasten()


async def metric(node: Node, name: str, **labels: str) -> float:
    """Reads a sample of the node's /metrics; 0 where the node has no such sample."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
        session.get(f"{node.url}/metrics") as reply,
    ):
        text = await reply.text()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(
        sample.value for sample in samples if sample.name == name and labels.items() <= dict(sample.labels).items()
    )
