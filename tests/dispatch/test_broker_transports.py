"""One contract for every transport over a broker, against the brokers that run here."""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from connect.dispatch.command import sign, signing_key
from connect.dispatch.lifecycle import Accepted, Answer, Completed, Misconfigured, Outcome, Retriable
from connect.dispatch.targets import Transport, open_transport
from connect.model import ClaimedCommand
from tests.brokers import STAND_INS, BrokerStandIn, standing_in_for
from tests.dispatch.stand_in import command, target_at

SECRET = "whsec_" + base64.b64encode(b"the key of a target").decode()
PATIENCE_S = 2.0
GOODBYE_S = 2.0
"""What letting go of a connection may take beyond it."""


@pytest.fixture(params=sorted(STAND_INS))
async def broker(request: Any) -> AsyncIterator[BrokerStandIn]:
    async with standing_in_for(request.param) as stand_in:
        yield stand_in


@asynccontextmanager
async def sending_to(url: str, **settings: Any) -> AsyncGenerator[Transport]:
    transport = open_transport(target_at(url, **({"timeout_s": PATIENCE_S} | settings)))
    try:
        yield transport
    finally:
        await transport.close()


def outcomes(answers: Sequence[Answer]) -> list[Outcome]:
    return [answer.outcome for answer in answers]


def commands(count: int) -> list[ClaimedCommand]:
    return [command(id=uuid4()) for _ in range(count)]


async def test_the_body_arrives_byte_for_byte_and_the_headers_beside_it(broker: BrokerStandIn):
    sent = command()
    async with sending_to(broker.url, secret=(SECRET,)) as transport:
        [answer] = await transport.send([sent])
    assert answer.outcome == Completed()
    [(body, headers)] = await broker.received()
    assert body == sent.body.encode()
    assert headers["content-type"] == "application/json"
    assert headers["idempotency-key"] == f'"{sent.id}"'
    assert headers["traceparent"].startswith(f"00-{sent.event_id.hex}-")
    timestamp = headers["webhook-timestamp"]
    assert headers["webhook-signature"] == sign(signing_key(SECRET), str(sent.id), int(timestamp), body)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Completed()),
        ({"complete_on": "accepted"}, Completed()),
        ({"complete_on": "result"}, Accepted()),
        ({"results_url": "redis://127.0.0.1?stream=results"}, Accepted()),
        ({"results_url": "redis://127.0.0.1?stream=results", "complete_on": "accepted"}, Completed()),
    ],
)
async def test_what_the_broker_has_is_completed_or_accepted_as_the_target_says(
    broker: BrokerStandIn, settings: dict[str, Any], expected: Outcome
):
    async with sending_to(broker.url, **settings) as transport:
        assert outcomes(await transport.send([command()])) == [expected]


async def test_a_hundred_commands_go_together_and_in_their_order(broker: BrokerStandIn):
    sent = commands(100)
    async with sending_to(broker.url) as transport:
        assert transport.batch_max == 100
        assert outcomes(await transport.send(sent)) == [Completed()] * 100
    received = [body for body, _ in await broker.received()]
    assert broker.arranged(received) == broker.arranged([each.body.encode() for each in sent])


async def test_several_sendings_share_one_connection(broker: BrokerStandIn):
    sendings = [commands(20) for _ in range(10)]
    async with sending_to(broker.url) as transport:
        told = await asyncio.gather(*(transport.send(sending) for sending in sendings))
    assert [outcomes(answers) for answers in told] == [[Completed()] * 20] * 10
    assert len(await broker.received()) == 200


async def test_a_broker_that_is_gone_is_retried_in_time_and_works_when_it_is_back(broker: BrokerStandIn):
    async with sending_to(broker.url) as transport:
        assert outcomes(await transport.send([command(id=uuid4())])) == [Completed()]
        await broker.relay.stop()
        for _ in range(2):
            started = time.monotonic()
            told = outcomes(await transport.send(commands(3)))
            assert time.monotonic() - started < PATIENCE_S + GOODBYE_S
            assert [type(outcome) for outcome in told] == [Retriable] * 3
        await broker.relay.start()
        assert outcomes(await transport.send([command(id=uuid4())])) == [Completed()]


async def test_a_cut_connection_is_made_anew_at_the_next_sending(broker: BrokerStandIn):
    async with sending_to(broker.url) as transport:
        await transport.send(commands(1))
        broker.cut()
        told = [type(outcome) for _ in range(2) for outcome in outcomes(await transport.send(commands(1)))]
        assert told[-1] is Completed
        assert told[0] in (Retriable, Completed)


async def test_a_broker_that_falls_silent_is_retried_in_time(broker: BrokerStandIn):
    async with sending_to(broker.url, timeout_s=1.0) as transport:
        await transport.send(commands(1))
        broker.relay.silent = True
        started = time.monotonic()
        told = outcomes(await transport.send(commands(2)))
        assert time.monotonic() - started < 1.0 + GOODBYE_S
        assert [type(outcome) for outcome in told] == [Retriable] * 2
        broker.relay.silent = False
        assert outcomes(await transport.send(commands(1))) == [Completed()]


async def test_a_wrong_password_is_told_as_something_to_mend(broker: BrokerStandIn):
    async with sending_to(await broker.refusing()) as transport:
        [outcome] = outcomes(await transport.send([command()]))
    assert isinstance(outcome, Misconfigured), outcome
    assert "nobody" not in outcome.reason


async def test_a_loopback_address_is_refused_unless_the_target_is_internal(broker: BrokerStandIn):
    async with sending_to(broker.url, internal=False) as transport:
        [outcome] = outcomes(await transport.send([command()]))
    assert isinstance(outcome, Misconfigured), outcome
    assert "internal = true" in outcome.reason


async def test_what_exists_is_used_as_it_is(broker: BrokerStandIn):
    await broker.make()
    async with sending_to(broker.url) as transport:
        assert outcomes(await transport.send([command()])) == [Completed()]
    assert await broker.as_made()
    assert len(await broker.received()) == 1


async def test_what_was_taken_away_meanwhile_is_made_anew(broker: BrokerStandIn):
    async with sending_to(broker.url) as transport:
        await transport.send(commands(1))
        await broker.take_away()
        told = [outcomes(await transport.send(commands(1)))[0] for _ in range(2)]
        assert isinstance(told[0], Completed | Retriable | Misconfigured)
        assert told[1] == Completed()


@pytest.mark.parametrize(("second", "messages"), [({"retries": 1}, 1), ({"retries": 0}, 2)])
async def test_jetstream_drops_a_repeat_and_lets_a_command_through_that_is_asked_about_again(
    second: dict[str, Any], messages: int
):
    async with standing_in_for("nats") as broker, sending_to(broker.url) as transport:
        told = await transport.send([command()]) + await transport.send([command(n=2, **second)])
        assert outcomes(told) == [Completed(), Completed()]
        assert len(await broker.received()) == messages


async def test_a_full_queue_of_rabbitmq_refuses_some_and_takes_the_others():
    async with standing_in_for("rabbitmq") as broker, sending_to(broker.url) as transport:
        broker.MADE = {"x-max-length": 5, "x-overflow": "reject-publish"}  # pyright: ignore[reportAttributeAccessIssue]
        await broker.make()
        told = outcomes(await transport.send(commands(20)))
        assert {type(outcome) for outcome in told} == {Completed, Retriable}
        assert told.count(Completed()) == len(await broker.received())
