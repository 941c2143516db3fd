"""Amazon SQS both ways, against moto's server over real HTTP."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer

from connect.brokers import BrokerMisconfigured, BrokerUnavailable, parse_address
from connect.brokers.address import Address
from connect.brokers.sqs import Queue
from connect.config import BusSettings, Settings
from connect.dispatch.lifecycle import Accepted, Completed, Misconfigured, Retriable
from connect.dispatch.targets import open_transport
from connect.intake.bus import open_bus
from connect.intake.bus.consumer import Consumer
from connect.intake.bus.facts import Facts, terms_of
from connect.intake.live import LiveRules
from connect.intake.record import Recorder
from connect.model import Target
from connect.store.dead import DeadFilter, list_dead
from tests.conftest import eventually, free_port
from tests.dispatch.stand_in import body_of, command


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def url(server: str) -> str:
    return f"sqs://eu-west-1/connect-test-{secrets.token_hex(6)}?endpoint={server}"


@pytest.fixture
async def queue(url: str) -> AsyncIterator[Queue]:
    opened = Queue(parse_address(url), timeout_s=10)
    await opened.open()
    yield opened
    await opened.client.delete_queue(QueueUrl=opened.url)
    await opened.close()


async def put(queue: Queue, count: int, **more: Any) -> list[str]:
    bodies = [f'{{"n": {n}}}' for n in range(count)]
    for start in range(0, count, 10):
        entries = [{"Id": str(n), "MessageBody": body, **more} for n, body in enumerate(bodies[start : start + 10])]
        await queue.client.send_message_batch(QueueUrl=queue.url, Entries=entries)
    return bodies


async def opened_bus(url: str) -> Any:
    bus = open_bus(parse_address(url), reader="one")
    await bus.open()
    return bus


async def test_a_batch_is_more_than_one_call_gives_and_what_is_acknowledged_is_forgotten(queue: Queue, url: str):
    bodies = await put(queue, 137)
    bus = await opened_bus(url)
    assert await bus.lag() == 137
    messages: list[Any] = []
    while len({message.body for message in messages}) < 137:  # a queue that is no FIFO may give one twice
        found = await bus.batch(100, 1)
        assert 0 < len(found) <= 100
        messages += found
    assert {message.body.decode() for message in messages} == set(bodies)
    await bus.keep(messages)
    await bus.ack(messages)
    assert (await bus.lag(), await bus.batch(10, 1)) == (0, [])
    await bus.close()


@asynccontextmanager
async def consuming(pool: Any, url: str) -> AsyncGenerator[None]:
    recorder = Recorder(pool, LiveRules(pool))
    flusher, stop = asyncio.create_task(recorder.run()), asyncio.Event()
    take = Facts(recorder, terms_of(BusSettings(url=url, source="shop"), Settings()), {}, "inline").take
    consumer = Consumer(pool, "orders", lambda: open_bus(parse_address(url), reader="one"), take)
    running = asyncio.create_task(consumer.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running
        recorder.close()
        await flusher


async def test_bad_messages_and_conflicts_are_kept_and_their_neighbours_are_recorded(pool: Any, queue: Queue, url: str):
    facts = [f'{{"external_id": "order-{n}", "event_type": "a.b"}}' for n in range(60)]
    other = '{"external_id": "order-1", "event_type": "a.b", "actor_user_id": "u1"}'
    for body in (*facts, '{"event_type": "a.b"}'):
        await queue.client.send_message(QueueUrl=queue.url, MessageBody=body)
    async with consuming(pool, url):
        await eventually(lambda: _recorded(pool, 60, 1))
        await queue.client.send_message(QueueUrl=queue.url, MessageBody=other)
        await eventually(lambda: _recorded(pool, 60, 2))
    kept = (await list_dead(pool, DeadFilter(), limit=10, cursor=None)).items
    assert [one.code for one in kept] == ["event_conflict", "event_invalid"]
    bus = await opened_bus(url)
    assert await bus.lag() == 0
    await bus.close()


async def _recorded(pool: Any, events: int, dead: int) -> bool:
    found = await pool.fetchrow("SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM dead_event)")
    return tuple(found) == (events, dead)


async def test_attributes_come_as_headers_do(queue: Queue, url: str):
    await put(queue, 1, MessageAttributes={"ce-id": {"DataType": "String", "StringValue": "7"}})
    bus = await opened_bus(url)
    [message] = await bus.batch(10, 1)
    assert message.attributes == {"ce-id": "7"}
    await bus.close()


async def test_what_a_dead_reader_took_comes_again(queue: Queue, url: str):
    await put(queue, 3)
    first = await opened_bus(url)
    taken = await first.batch(10, 1)
    await first.close()
    assert len(taken) == 3
    second = await opened_bus(url)
    assert await second.batch(10, 1) == [], "they are the first reader's until their time runs out"
    for message in taken:
        await queue.client.change_message_visibility(
            QueueUrl=queue.url, ReceiptHandle=message.handle, VisibilityTimeout=0
        )
    assert len(await second.batch(10, 1)) == 3
    await second.close()


async def test_a_queue_that_does_not_exist_is_made_and_one_that_does_is_used_as_it_is(url: str, queue: Queue):
    await queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"MessageRetentionPeriod": "120"})
    bus = await opened_bus(url)
    found = await queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])
    assert found["Attributes"]["MessageRetentionPeriod"] == "120"
    await bus.close()


async def test_a_broker_that_is_away_is_unavailable_and_missing_credentials_are_for_a_person(
    monkeypatch: pytest.MonkeyPatch, server: str
):
    with pytest.raises(BrokerUnavailable):
        await opened_bus(f"sqs://eu-west-1/q?endpoint=http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(BrokerMisconfigured, match="credentials"):
        await opened_bus(f"sqs://eu-west-1/q?endpoint={server}")


async def test_commands_are_confirmed_with_the_same_body_and_headers(queue: Queue, url: str):
    commands = [command(id=id, body=body_of(id)) for id in (uuid4() for _ in range(25))]
    transport = open_transport(Target(url=url, internal=True))
    answers = await transport.send(commands)
    assert [answer.outcome for answer in answers] == [Completed()] * 25
    bus = await opened_bus(url)
    messages: list[Any] = []
    while len({message.body for message in messages}) < 25:
        messages += await bus.batch(100, 1)
    assert {message.body.decode() for message in messages} == {one.body for one in commands}
    keys = {message.attributes["idempotency-key"] for message in messages}
    assert keys == {f'"{one.id}"' for one in commands}
    await bus.close()
    await transport.close()


async def test_a_fifo_queue_drops_a_repeat_and_lets_through_what_is_asked_again(server: str):
    url = f"sqs://eu-west-1/connect-test-{secrets.token_hex(6)}.fifo?endpoint={server}"
    transport = open_transport(Target(url=url, internal=True, complete_on="result"))
    for n, retries in ((1, 0), (2, 1), (3, 1)):
        [answer] = await transport.send([command(n=n, retries=retries)])
        assert answer.outcome == Accepted()
    bus = await opened_bus(url)
    assert await bus.lag() == 2, "the second was a repeat of an attempt that may have arrived; the third asks again"
    await bus.close()
    await transport.close()


async def test_a_broker_that_is_away_or_not_allowed_is_an_answer(server: str):
    away = open_transport(Target(url=f"sqs://eu-west-1/q?endpoint=http://127.0.0.1:{free_port()}", internal=True))
    [answer] = await away.send([command()])
    assert isinstance(answer.outcome, Retriable)
    await away.close()
    outside = open_transport(Target(url=f"sqs://eu-west-1/q?endpoint={server}"))
    [answer] = await outside.send([command()])
    assert isinstance(answer.outcome, Misconfigured)
    assert "internal" in answer.outcome.reason
    await outside.close()


def test_an_address_says_region_and_queue():
    address = parse_address("sqs://eu-west-1/orders.fifo")
    assert address == Address(scheme="sqs", url="sqs://eu-west-1/orders.fifo", host="eu-west-1", name="orders.fifo")
