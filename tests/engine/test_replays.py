"""Deciding again: a story told twice comes out the same, and so does a fact decided by what its decision had read."""

from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from connect.engine.decide import State, decide
from connect.engine.index import Rulebook
from connect.engine.simulate import Simulation
from connect.model import Decision, EconomicEvent
from tests.engine.scenarios import UNDO, Sent, Story, story
from tests.engine.telling import NOON, Told, rule

STORIES = 60


def decided(told: Story, simulation: Simulation) -> list[tuple[EconomicEvent, datetime, Decision]]:
    found: list[tuple[EconomicEvent, datetime, Decision]] = []
    for event in told.steps:
        if not isinstance(event, Sent):
            now = event.received_at + timedelta(seconds=1)
            found.append((event, now, simulation.decide(event, now, told.arms)))
    return found


def as_stored(read: dict[str, Any]) -> dict[str, Any]:
    """The state values of a decision, as the database keeps them."""
    return msgspec.json.decode(msgspec.json.encode(read))


def test_a_story_told_twice_is_the_same_story() -> None:
    for seed in range(STORIES // 2):
        told = story(Random(seed), 12)
        first, second = (decided(told, Simulation(Rulebook.compile(3, told.document, {}), undo=UNDO)) for _ in range(2))
        assert msgspec.json.encode([one for *_, one in first]) == msgspec.json.encode([one for *_, one in second])


@pytest.mark.parametrize("part", range(2))
def test_what_a_decision_read_gives_the_same_actions_again_bit_for_bit(part: int) -> None:
    compared = 0
    for seed in range(part, STORIES, 2):
        told = story(Random(seed), 12)
        rulebook = Rulebook.compile(3, told.document, {})
        for event, now, decision in decided(told, Simulation(rulebook, undo=UNDO)):
            takes_back = any(one.outcome == "took_back" for one in decision.trace)
            if takes_back or any(one.status == "cancelled" for one in decision.actions):
                continue
            state = State(now=now, recorded=as_stored(decision.read), arms=told.arms)
            again = decide(event, rulebook, state)
            assert again.actions == decision.actions
            assert [one.outcome for one in again.trace] == [one.outcome for one in decision.trace]
            compared += len(decision.actions)
    assert compared > STORIES


def test_a_sliding_limit_denies_again_by_the_moments_it_had_known() -> None:
    told = Told(rule(limits=[{"per": "actor", "within": "6h", "uses": 1}]))
    told.bought(at=NOON)
    assert told.bought(at=NOON + timedelta(hours=1)) == "limited"
    assert told.decision is not None
    event = replace(told.simulation.events[told.decision.event_id], status="received", decided_at=None)
    again = decide(event, told.rulebook, State(now=told.now, recorded=as_stored(told.decision.read)))
    assert (again.trace, again.actions) == (told.decision.trace, ())
