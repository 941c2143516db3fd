"""`connect doctor` on buses and targets over brokers: it looks, says what to mend, and makes nothing."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connect.cli.health.probe import Finding, probe, probe_bus
from connect.model import Target
from tests.brokers import STAND_INS, BrokerStandIn, standing_in_for


@pytest.fixture(params=sorted(STAND_INS))
async def broker(request: Any) -> AsyncIterator[BrokerStandIn]:
    async with standing_in_for(request.param) as stand_in:
        yield stand_in


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.level for finding in findings}


async def test_what_does_not_exist_yet_is_told_and_not_made(broker: BrokerStandIn):
    for _ in range(2):
        finding = await probe_bus("orders", broker.url)
        assert finding.level == "ok", finding
        assert "does not exist yet" in finding.detail


async def test_a_bus_that_is_behind_says_by_how_much(broker: BrokerStandIn):
    await broker.make()
    await broker.put([b"{}"] * 3)
    finding = await probe_bus("orders", broker.url)
    assert (finding.check, "3 waiting" in finding.detail) == ("bus orders", True), finding


async def test_a_wrong_password_is_somebodys_to_mend(broker: BrokerStandIn):
    finding = await probe_bus("orders", await broker.refusing())
    assert (finding.level, "url of [bus.orders]" in finding.mend) == ("fail", True), finding
    assert "wrong" not in finding.detail, "a password is never repeated"


async def test_a_broker_that_is_away_is_told(broker: BrokerStandIn):
    await broker.relay.stop()
    finding = await probe_bus("orders", broker.url)
    assert (finding.level, "is the broker up" in finding.mend) == ("fail", True), finding


async def test_a_target_and_the_queue_of_its_results_are_looked_at(broker: BrokerStandIn):
    target = Target(url=broker.url, internal=True, results_url=broker.url)
    assert set(levels(await probe("points", target))) == {
        "target points: broker",
        "target points: secret",
        "target points: results",
    }


async def test_another_kind_of_thing_under_the_name_is_told(broker: BrokerStandIn):
    if broker.option == "stream":
        await broker.client.set(broker.name, "a text")  # type: ignore[attr-defined]
        finding = await probe_bus("orders", broker.url)
        assert (finding.level, "string" in finding.detail) == ("fail", True), finding


async def test_a_url_that_cannot_be_one_is_told():
    finding = await probe_bus("orders", "redis://127.0.0.1:6379/0")
    assert (finding.level, "redis://host:6379/0?stream=NAME" in finding.detail) == ("fail", True)
