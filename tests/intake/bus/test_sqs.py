"""Amazon SQS alone does these things; the suites of all brokers show what every bus and every transport does."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connect.brokers import BrokerMisconfigured, parse_address
from connect.brokers.address import Address
from connect.dispatch.targets import open_transport
from connect.intake.bus import Bus, Message, open_bus
from connect.lifecycle import Accepted
from connect.model import Target
from tests.brokers.sqs import SqsStandIn
from tests.dispatch.stand_in import command


@pytest.fixture
async def queue() -> AsyncIterator[SqsStandIn]:
    stand_in = SqsStandIn()
    await stand_in.start()
    yield stand_in
    await stand_in.cleanup()


@asynccontextmanager
async def reading(url: str) -> AsyncGenerator[Bus]:
    bus = open_bus(parse_address(url), reader="one")
    try:
        await bus.open()
        yield bus
    finally:
        await bus.close()


async def test_a_batch_is_more_than_one_call_gives_and_what_is_acknowledged_is_forgotten(queue: SqsStandIn):
    bodies = [b"%d" % number for number in range(137)]
    await queue.put(bodies)
    async with reading(queue.url) as bus:
        messages: list[Message] = []
        while len(messages) < 137:
            found = await bus.batch(100, 1)
            assert 10 < len(found) <= 100
            messages += found
        assert sorted(message.body for message in messages) == sorted(bodies)
        await bus.keep(messages)
        await bus.ack(messages)
        assert await bus.lag() == 0


async def test_what_a_dead_reader_took_is_its_own_until_its_time_runs_out(queue: SqsStandIn):
    await queue.put([b"1", b"2", b"3"])
    async with reading(queue.url) as first:
        assert len(await first.batch(10, 1)) == 3
    async with reading(queue.url) as second:
        await queue.half_a_while()
        assert await second.batch(10, 1) == []
        await queue.half_a_while()
        assert len(await second.batch(10, 1)) == 3


async def test_missing_credentials_are_for_a_person(monkeypatch: pytest.MonkeyPatch, queue: SqsStandIn):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(BrokerMisconfigured, match="credentials"):
        async with reading(queue.url):
            pass


async def test_a_fifo_queue_drops_a_repeat_and_lets_through_what_is_asked_again(queue: SqsStandIn):
    queue.name += ".fifo"
    transport = open_transport(Target(url=queue.url, internal=True, complete_on="result"))
    for n, retries in ((1, 0), (2, 1), (3, 1)):
        [answer] = await transport.send([command(n=n, retries=retries)])
        assert answer.outcome == Accepted()
    await transport.close()
    assert await queue.pending() == 2, (
        "the second was a repeat of an attempt that may have arrived; the third asks again"
    )


def test_an_address_says_region_and_queue():
    address = parse_address("sqs://eu-west-1/orders.fifo")
    assert address == Address(scheme="sqs", url="sqs://eu-west-1/orders.fifo", host="eu-west-1", name="orders.fifo")
