"""Transports over a broker do more than the contract of all transports, against the brokers that run here."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connect.lifecycle import Accepted, Completed, Misconfigured, Outcome, Retriable
from tests.brokers import STAND_INS, BrokerStandIn, standing_in_for
from tests.dispatch.sending import commands, outcomes, sending_to
from tests.dispatch.stand_in import command


@pytest.fixture(params=sorted(STAND_INS))
async def broker(request: Any) -> AsyncIterator[BrokerStandIn]:
    async with standing_in_for(request.param) as stand_in:
        yield stand_in


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
