"""One contract for every bus, against the brokers that run here: in order, again until acknowledged, none lost."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from connect.brokers import BrokerMisconfigured, BrokerUnavailable, parse_address
from connect.config import BusSettings, Settings
from connect.intake.bus import Bus, Message, open_bus
from connect.intake.bus.consumer import Consumer
from connect.intake.bus.event_sink import Facts, terms_of
from connect.intake.live import LiveRules
from connect.intake.record import Recorder
from connect.store.dead_letters import DeadFilter, list_dead
from tests.brokers import STAND_INS, BrokerStandIn, NatsStandIn, standing_in_for
from tests.conftest import eventually


@pytest.fixture(params=sorted(STAND_INS))
async def broker(request: Any) -> AsyncIterator[BrokerStandIn]:
    async with standing_in_for(request.param) as stand_in:
        yield stand_in


@asynccontextmanager
async def reading(broker: BrokerStandIn, reader: str = "one") -> AsyncGenerator[Bus]:
    bus = open_bus(broker.address(), reader=reader)
    try:
        await bus.open()
        yield bus
    finally:
        await bus.close()


async def take(bus: Bus, count: int) -> list[Message]:
    """Exactly so many, in as many batches as it takes."""
    messages: list[Message] = []
    async with asyncio.timeout(10):
        while len(messages) < count:
            messages += await bus.batch(count - len(messages), 0.5)
    return messages


def bodies(messages: list[Message]) -> list[bytes]:
    return [message.body for message in messages]


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def fact(number: int, **fields: Any) -> bytes:
    return msgspec.json.encode({"external_id": f"order-{number}", "event_type": "purchase.completed", **fields})


@asynccontextmanager
async def consuming(pool: Any, broker: BrokerStandIn) -> AsyncGenerator[None]:
    rules = LiveRules(pool)
    recorder = Recorder(pool, rules)
    flusher, stop = asyncio.create_task(recorder.run()), asyncio.Event()
    address = broker.address()
    terms = terms_of(BusSettings(url=broker.url, source="shop"), Settings())
    consumer = Consumer(
        pool, "orders", lambda: open_bus(address, reader="one"), Facts(recorder, terms, {}, "inline").take
    )
    running = asyncio.create_task(consumer.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running
        recorder.close()
        await flusher


async def recorded(pool: Any, events: int, dead: int) -> bool:
    found = await pool.fetchrow("SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM dead_event)")
    return tuple(found) == (events, dead)


async def nothing_pending(broker: BrokerStandIn) -> bool:
    return await broker.pending() == 0


async def test_batches_bring_all_messages_in_their_order(broker: BrokerStandIn):
    async with reading(broker) as bus:
        assert await bus.batch(10, 0.1) == []
        sent = numbered(broker.many)
        await broker.put(sent)
        assert broker.arranged(bodies(await take(bus, len(sent)))) == broker.arranged(sent)
        assert await bus.batch(10, 0.1) == []


async def test_a_message_is_brought_soon_and_not_when_the_batch_is_full(broker: BrokerStandIn):
    async with reading(broker) as bus:
        waiting = asyncio.create_task(bus.batch(500, 30))
        await broker.put([b"one"])
        assert bodies(await asyncio.wait_for(waiting, 5)) == [b"one"]


async def test_what_was_acknowledged_is_forgotten_and_the_rest_comes_back_when_the_reader_leaves(broker: BrokerStandIn):
    async with reading(broker) as bus:
        await broker.put(numbered(10))
        messages = await take(bus, 10)
        await bus.ack(messages[:4])
        await broker.half_a_while()
    await broker.half_a_while()
    async with reading(broker, "two") as bus:
        left = await take(bus, 6)
        assert sorted(bodies(left)) == numbered(10)[4:]
        await bus.ack(left)
        assert await bus.batch(10, 0.2) == []
    await eventually(lambda: nothing_pending(broker))


async def test_what_is_unacknowledged_comes_back_when_the_connection_is_cut(broker: BrokerStandIn):
    async with reading(broker) as bus:
        await broker.put(numbered(10))
        await take(bus, 10)
        await broker.half_a_while()
        broker.cut()
        if broker.holds_connections:
            with pytest.raises(BrokerUnavailable):
                await take(bus, 1)
    await broker.half_a_while()
    async with reading(broker, "two") as bus:
        assert sorted(bodies(await take(bus, 10))) == numbered(10)


async def test_what_is_kept_is_not_given_to_another_reader(broker: BrokerStandIn):
    async with reading(broker) as first, reading(broker, "two") as second:
        await broker.put([b"kept"])
        got: list[list[Message]] = [[], []]
        while not any(got):
            got = [await first.batch(1, 0.1), await second.batch(1, 0.1)]
        keeper, other = (first, second) if got[0] else (second, first)
        for _ in range(3):
            await broker.half_a_while()
            await keeper.keep(got[0] or got[1])
            assert await other.batch(1, 0.1) == []


async def test_lag_counts_what_waits_and_what_is_held(broker: BrokerStandIn):
    async with reading(broker) as bus:
        assert await bus.lag() == 0
        await broker.put(numbered(7))

        async def lags(count: int) -> bool:
            return await bus.lag() == count

        await eventually(lambda: lags(7))
        messages = await take(bus, 3)
        await eventually(lambda: lags(7))
        await bus.ack(messages)
        await eventually(lambda: lags(4))


async def test_what_exists_is_used_as_it_is(broker: BrokerStandIn):
    await broker.make()
    await broker.put(numbered(3))
    async with reading(broker) as bus:
        messages = await take(bus, 3)
        assert broker.arranged(bodies(messages)) == numbered(3)
        await bus.ack(messages)
    assert await broker.as_made()


async def test_refused_credentials_are_told_as_something_to_mend(broker: BrokerStandIn):
    bus = open_bus(parse_address(await broker.refusing()), reader="one")
    with pytest.raises(BrokerMisconfigured) as told:
        await bus.open()
    await bus.close()
    assert "wrong" not in str(told.value).replace("WRONGPASS", "")


async def test_a_broker_that_does_not_answer_is_told_as_unavailable(broker: BrokerStandIn):
    await broker.relay.stop()
    bus = open_bus(broker.address(), reader="one")
    with pytest.raises(BrokerUnavailable) as told:
        await bus.open()
    await bus.close()
    assert not isinstance(told.value, BrokerMisconfigured)


async def test_headers_come_as_attributes_in_lower_case(broker: BrokerStandIn):
    async with reading(broker) as bus:
        await broker.put([b"{}"], {"ce-id": "order%201", "Traceparent": "00-1"})
        [message] = await take(bus, 1)
    assert message.attributes.items() >= {"ce-id": "order%201", "traceparent": "00-1"}.items()


BINARY: Mapping[str, str] = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "shop",
    "ce-type": "purchase.completed",
}


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_"])
async def test_a_cloudevent_in_the_binary_form_of_amqp_is_recorded(pool: Any, prefix: str):
    attributes = {f"{prefix}{name[3:]}": value for name, value in BINARY.items()} | {f"{prefix}id": "100%25"}
    async with standing_in_for("rabbitmq") as broker:
        await broker.make()
        async with consuming(pool, broker):
            await broker.put([b'{"actor_user_id": "u1"}'], attributes)
            await eventually(lambda: recorded(pool, 1, 0))
    assert await pool.fetchval("SELECT external_id FROM event") == "100%25"  # AMQP does not encode it


async def test_several_streams_under_one_pattern_are_told_unless_one_is_named():
    async with standing_in_for("nats") as broker:
        assert isinstance(broker, NatsStandIn)
        for part in ("a", "b"):
            await broker.streams.add_stream(name=f"{broker.name}-{part}", subjects=[f"{broker.name}.{part}"])
        url = broker.url + ".>"
        bus = open_bus(parse_address(url), reader="one")
        with pytest.raises(BrokerMisconfigured, match="name one of them by"):
            await bus.open()
        await bus.close()
        named = open_bus(parse_address(f"{url}&stream={broker.name}-a"), reader="one")
        await named.open()
        await broker.streams.publish(f"{broker.name}.a", b"one")
        assert bodies(await take(named, 1)) == [b"one"]
        await named.close()
        for part in ("a", "b"):
            await broker.streams.delete_stream(f"{broker.name}-{part}")


async def test_another_use_of_a_consumers_name_is_told_before_anything_is_read():
    async with standing_in_for("nats") as broker:
        assert isinstance(broker, NatsStandIn)
        await broker.make()
        await broker.streams.add_consumer(
            f"{broker.name}-made", durable_name="theirs", filter_subject=f"{broker.name}.others", ack_policy="explicit"
        )
        bus = open_bus(parse_address(f"{broker.url}&durable=theirs"), reader="one")
        with pytest.raises(BrokerMisconfigured, match=r"theirs is for the subject connect-test-\w+\.others"):
            await bus.open()
        await bus.close()


async def test_tls_is_never_given_up_for_a_connection_in_the_clear():
    async with standing_in_for("nats") as broker:
        bus = open_bus(parse_address(broker.url.replace("nats://", "tls://somebody:secret@")), reader="one")
        with pytest.raises(BrokerMisconfigured, match="secure connection not available"):
            await bus.open()
        await bus.close()


async def test_a_virtual_host_that_does_not_exist_is_told_as_something_to_mend():
    async with standing_in_for("rabbitmq") as broker:
        bus = open_bus(parse_address(broker.url.replace("/?", "/nowhere?")), reader="one")
        with pytest.raises(BrokerMisconfigured, match="virtual host"):
            await bus.open()
        await bus.close()


async def test_a_queue_taken_away_is_told_to_its_reader():
    async with standing_in_for("rabbitmq") as broker, reading(broker) as bus:
        await broker.take_away()
        with pytest.raises(BrokerUnavailable, match="is the queue gone"):
            await take(bus, 1)


async def test_a_cloudevent_in_binary_form_is_recorded(pool: Any, broker: BrokerStandIn):
    await broker.make()
    async with consuming(pool, broker):
        await broker.put([b'{"actor_user_id": "u1"}'], BINARY)
        await eventually(lambda: recorded(pool, 1, 0))
    found = await pool.fetchrow("SELECT external_id, source, event_type, actor_user_id FROM event")
    assert tuple(found) == ("1", "shop", "purchase.completed", "u1")


async def test_one_bad_message_of_a_batch_is_kept_with_its_reason_and_the_others_are_recorded(
    pool: Any, broker: BrokerStandIn
):
    await broker.make()
    count = min(500, broker.many)
    await broker.put([fact(number) if number != 77 else b'{"event_type": "x"}' for number in range(count)])
    async with consuming(pool, broker):
        await eventually(lambda: recorded(pool, count - 1, 1))
    [dead] = (await list_dead(pool, DeadFilter(), limit=10, cursor=None)).items
    assert (dead.bus, dead.code, dead.times, dead.body) == ("orders", "event_invalid", 1, '{"event_type": "x"}')
    assert "external_id" in dead.reason
    await eventually(lambda: nothing_pending(broker))


async def test_a_conflict_and_a_repeat_are_told_apart(pool: Any, broker: BrokerStandIn):
    await broker.make()
    await broker.put([fact(1, context={"a": 1}), fact(1, context={"a": 1.0}), fact(1, context={"a": 2})])
    async with consuming(pool, broker):
        await eventually(lambda: recorded(pool, 1, 1))
    [dead] = (await list_dead(pool, DeadFilter(), limit=10, cursor=None)).items
    assert (dead.code, dead.event_id) == ("event_conflict", await pool.fetchval("SELECT id FROM event"))
    await eventually(lambda: nothing_pending(broker))


async def test_a_consumer_goes_on_after_the_connection_was_cut_and_nothing_is_lost(pool: Any, broker: BrokerStandIn):
    await broker.make()
    async with consuming(pool, broker):
        share = broker.many // 9
        for part in range(3):
            await broker.put([fact(number) for number in range(part * share, (part + 1) * share)])
            broker.cut()

        async def all_recorded() -> bool:
            await broker.half_a_while()  # what was given with an answer that was lost waits for its time to run out
            return await recorded(pool, 3 * share, 0)

        await eventually(all_recorded, timeout_s=30, every_s=2)
    await eventually(lambda: nothing_pending(broker))
