"""Facts from each broker until decided and commands to it until confirmed, beside its bare client doing the same.

`python -m bench.brokers [redis rabbitmq nats]` prints medians over interleaved repeats. Both sides of the way in read
batches of 500, decide and commit them by the same statement, and acknowledge after it; both sides of the way out send
the same bodies and headers and wait for the broker's confirmation. Only the ratios of one run say something: the
brokers are the machine's own, PostgreSQL is an embedded one with fsync on.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import nats
from aiormq.connection import Connection
from pamqp.commands import Basic
from redis.asyncio import Redis

from bench.intake import RULES, documents
from connect.brokers import parse_address
from connect.brokers.sqs import Queue, calls
from connect.config import BusSettings, Settings
from connect.dispatch.targets import open_transport
from connect.engine.index import Rulebook
from connect.intake.bus import open_bus
from connect.intake.bus.consumer import Consumer
from connect.intake.bus.event_sink import Facts, terms_of
from connect.intake.deciding import decide_plain
from connect.intake.live import LiveRules
from connect.intake.normalize import Terms, decode_reported, normalize
from connect.intake.record import Recorder, decided_row
from connect.model import ClaimedCommand, Target
from connect.store.embedded import EmbeddedPostgres
from connect.store.events.record import record
from connect.store.migrate import migrate
from connect.store.pool import open_pool
from connect.store.rules import change
from connect.telemetry import BUS_MESSAGES, set_up_logging
from tests.brokers import BrokerStandIn, standing_in_for

EVENTS = 10_000
BATCH = 500
COMMANDS = 5_000
SENDING = 100
AT_ONCE = 4
REPEATS = 3
FEW = {"sqs": 200}
"""The smaller counts for a broker that is slow here: moto, in this process, stands in for Amazon's servers."""


def events_of(broker: str) -> int:
    return FEW.get(broker, EVENTS)


def commands_of(broker: str) -> int:
    return FEW.get(broker, COMMANDS)


# --- the way in -----------------------------------------------------------------------------------


class Bare:
    """Decides and commits what a bare client brings."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._rulebook = Rulebook.compile(1, RULES, {})

    async def commit(self, bodies: Sequence[bytes]) -> None:
        now = datetime.now(UTC)
        normals = [normalize(decode_reported(body), Terms(), now) for body in bodies]
        rows = [decided_row(normal, decide_plain(normal.event, self._rulebook, now)) for normal in normals]
        async with self._pool.acquire() as connection:
            await record(connection, rows)


async def bare_redis(made: BrokerStandIn, bare: Bare) -> None:
    client: Any = Redis.from_url(made.server)
    await client.xgroup_create(made.name, "bare", id="0", mkstream=True)
    left = EVENTS
    while left:
        found: Any = await client.xreadgroup("bare", "one", {made.name: ">"}, count=BATCH, block=1000)
        entries = (
            found[0][1] if isinstance(found, list) else [one for part in found[made.name.encode()] for one in part]
        )
        await bare.commit([fields[b"event"] for _, fields in entries])
        await client.xack(made.name, "bare", *(id for id, _ in entries))
        left -= len(entries)
    await client.aclose()


async def bare_rabbitmq(made: BrokerStandIn, bare: Bare) -> None:
    connection: Any = Connection(made.server)
    await connection.connect()
    channel = await connection.channel(publisher_confirms=False)
    await channel.basic_qos(prefetch_count=2 * BATCH)
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    await channel.basic_consume(made.name, arrived.put)
    left = EVENTS
    while left:
        messages = [await arrived.get() for _ in range(min(BATCH, left))]
        await bare.commit([message.body for message in messages])
        await channel.basic_ack(messages[-1].delivery.delivery_tag, multiple=True)
        left -= len(messages)
    await connection.close()


async def bare_nats(made: BrokerStandIn, bare: Bare) -> None:
    client = await nats.connect(made.server)
    subscription = await client.jetstream().pull_subscribe(made.name, durable=f"bare-{made.name}")
    left = EVENTS
    while left:
        messages = await subscription.fetch(min(BATCH, left), timeout=5)
        await bare.commit([message.data for message in messages])
        for message in messages:
            await message.ack()
        await client.flush()
        left -= len(messages)
    await client.close()


async def bare_sqs(made: BrokerStandIn, bare: Bare) -> None:
    queue = await opened_queue(made)
    left = events_of("sqs")
    while left:
        answers = await asyncio.gather(
            *(queue.client.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10) for _ in range(BATCH // 10))
        )
        messages = [message for answer in answers for message in answer.get("Messages", ())]
        await bare.commit([message["Body"].encode() for message in messages])
        await asyncio.gather(
            *(
                queue.client.delete_message_batch(
                    QueueUrl=queue.url,
                    Entries=[{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(part)],
                )
                for part in calls(messages)
            )
        )
        left -= len(messages)
    await queue.close()


async def opened_queue(made: BrokerStandIn) -> Queue:
    queue = Queue(parse_address(made.direct_url), timeout_s=30)
    await queue.open()
    return queue


BARE_READERS = {"redis": bare_redis, "rabbitmq": bare_rabbitmq, "nats": bare_nats, "sqs": bare_sqs}


async def ours_reading(made: BrokerStandIn, pool: Any, count: int) -> None:
    rules = LiveRules(pool)
    await rules.refresh()
    recorder = Recorder(pool, rules)
    flusher, stop = asyncio.create_task(recorder.run()), asyncio.Event()
    terms = terms_of(BusSettings(url="", source=None), Settings())
    address = parse_address(made.direct_url)
    consumer = Consumer(
        pool, "bench", lambda: open_bus(address, reader="one"), Facts(recorder, terms, {}, "inline").take
    )
    running = asyncio.create_task(consumer.run(stop))
    taken = BUS_MESSAGES.labels("bench", "taken")
    enough = taken._value.get() + count  # counted in this process: a query would take its share of the cores
    while taken._value.get() < enough:  # noqa: ASYNC110  the counter tells nobody
        await asyncio.sleep(0.01)
    stop.set()
    await running
    recorder.close()
    await flusher


async def filled(broker: str, made: BrokerStandIn, run: str) -> None:
    """The queue as Connect makes it, with all messages in it."""
    bus = open_bus(parse_address(made.direct_url), reader="zero")
    await bus.open()
    await bus.close()
    bodies = [msgspec.json.encode(document) for document in documents(run)][: events_of(broker)]
    for start in range(0, len(bodies), 1000):
        await made.put(bodies[start : start + 1000])


async def read_once(broker: str, pool: Any, run: str, *, bare: bool) -> float:
    """Events a second, decided, committed and acknowledged."""
    async with standing_in_for(broker) as made:
        await filled(broker, made, run)
        if bare and broker == "nats":  # a work queue has one reader; the bare one reads in our place
            stream = await made.streams.find_stream_name_by_subject(made.name)  # type: ignore[attr-defined]
            await made.streams.delete_consumer(stream, f"connect-{made.name}")  # type: ignore[attr-defined]
        begun = time.perf_counter()
        await (BARE_READERS[broker](made, Bare(pool)) if bare else ours_reading(made, pool, events_of(broker)))
        took = time.perf_counter() - begun
    stored = await pool.fetchval("SELECT count(*) FROM event WHERE external_id LIKE $1", f"{run}-%")
    if stored != events_of(broker):
        raise SystemExit(f"{broker}: {stored} of {events_of(broker)} events were stored")
    return stored / took


# --- the way out ----------------------------------------------------------------------------------


def commands(count: int) -> list[ClaimedCommand]:
    now = datetime.now(UTC)
    body = '{{"id":"{}","type":"points.credit","user_id":"u1","amount":"259","unit":"points","params":{{}}}}'
    return [
        ClaimedCommand(
            id=id, event_id=uuid4(), target="points", body=body.format(id), n=1, retries=0, claimed_at=now,
            give_up_at=now + timedelta(days=3), lease_until=now + timedelta(seconds=30),
        )
        for id in (uuid4() for _ in range(count))
    ]  # fmt: skip


HEADERS = {
    "Content-Type": "application/json",
    "Idempotency-Key": '"' + str(uuid4()) + '"',
    "traceparent": "00-" + "0" * 52,
}


async def bare_send(broker: str, made: BrokerStandIn, part: Sequence[ClaimedCommand], client: Any) -> None:
    if broker == "redis":
        pipe = client.pipeline(transaction=False)
        for command in part:
            pipe.xadd(made.name, {"command": command.body.encode(), **HEADERS})
        await pipe.execute()
    elif broker == "rabbitmq":
        await asyncio.gather(
            *(
                client.basic_publish(
                    command.body.encode(), routing_key=made.name, mandatory=True,
                    properties=Basic.Properties(headers=dict(HEADERS), delivery_mode=2, message_id=str(command.id)),
                )
                for command in part
            )
        )  # fmt: skip
    elif broker == "sqs":
        attributes = {name: {"DataType": "String", "StringValue": value} for name, value in HEADERS.items()}
        entries = [
            {"Id": str(n), "MessageBody": command.body, "MessageAttributes": attributes}
            for n, command in enumerate(part)
        ]
        await asyncio.gather(
            *(client.client.send_message_batch(QueueUrl=client.url, Entries=some) for some in calls(entries))
        )
    else:
        sent = [
            await client.publish_async(
                made.name, command.body.encode(), headers=HEADERS | {"Nats-Msg-Id": str(command.id)}
            )
            for command in part
        ]
        await asyncio.gather(*sent)


async def bare_client(broker: str, made: BrokerStandIn) -> tuple[Any, Callable[[], Any]]:
    if broker == "redis":
        client: Any = Redis.from_url(made.server)
        return client, client.aclose
    if broker == "rabbitmq":
        connection: Any = Connection(made.server)
        await connection.connect()
        return await connection.channel(), connection.close
    if broker == "sqs":
        queue = await opened_queue(made)
        return queue, queue.close
    connected = await nats.connect(made.server)
    return connected.jetstream(publish_async_max_pending=10_000), connected.close


async def send_once(broker: str, *, bare: bool) -> float:
    """Commands a second, confirmed: `AT_ONCE` sendings of `SENDING` commands under way."""
    async with standing_in_for(broker) as made:
        transport = open_transport(Target(url=made.direct_url, internal=True))
        await transport.send(commands(1))  # connects, and makes the queue
        client, leave = await bare_client(broker, made)
        everything = commands(commands_of(broker))
        parts = [everything[start : start + SENDING] for start in range(0, len(everything), SENDING)]
        refused: list[Any] = []

        async def send_some(share: Sequence[Sequence[ClaimedCommand]]) -> None:
            for part in share:
                if bare:
                    await bare_send(broker, made, part, client)
                else:
                    answers = await transport.send(part)
                    refused.extend(one for one in answers if type(one.outcome).__name__ != "Completed")

        begun = time.perf_counter()
        await asyncio.gather(*(send_some(parts[index::AT_ONCE]) for index in range(AT_ONCE)))
        took = time.perf_counter() - begun
        await transport.close()
        await leave()
    if refused:
        raise SystemExit(f"{broker}: {len(refused)} commands were not confirmed: {refused[0]}")
    return len(everything) / took


async def compare(pool: Any, brokers: Sequence[str]) -> None:
    print(f"| {REPEATS} repeats, medians | bare client /s | Connect /s | of bare |")
    print("|---|---|---|---|")
    for broker in brokers:
        read: dict[bool, list[float]] = {True: [], False: []}
        sent: dict[bool, list[float]] = {True: [], False: []}
        for repeat in range(REPEATS):
            for bare in (True, False):
                run = f"{broker}{repeat}{'bare' if bare else 'ours'}"
                read[bare].append(await read_once(broker, pool, run, bare=bare))
                sent[bare].append(await send_once(broker, bare=bare))
        for what, found in ((f"{broker}: facts in", read), (f"{broker}: commands out", sent)):
            bare, ours = statistics.median(found[True]), statistics.median(found[False])
            print(f"| {what} | {bare:,.0f} | {ours:,.0f} | {ours / bare:.2f} |", flush=True)


async def main(brokers: Sequence[str] = ()) -> None:
    set_up_logging("error")
    with tempfile.TemporaryDirectory(prefix="connect-bench-") as folder:
        async with await EmbeddedPostgres.start(Path(folder) / "home") as server:
            await migrate(server.url)
            pool = await open_pool(server.url)
            async with pool.acquire() as connection:
                await change(connection, lambda _: RULES, "bench", "")
            await compare(pool, brokers or list(BARE_READERS))
            await pool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
