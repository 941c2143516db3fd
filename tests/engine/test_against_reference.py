"""Random rulesets and stories, decided by the engine and by the plain reference: the same in every respect.

`CONNECT_REFERENCE_EXAMPLES` sets how many stories are told (`CONNECT_REFERENCE_EXAMPLES=100000` runs for an hour).
"""

import os
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from connect.engine.index import Rulebook
from connect.engine.simulate import Simulation, taken
from connect.engine.state import StateValue
from connect.model import Decision, EconomicEvent, Limit, RewardAction
from tests.engine.reference import Answer, Given, Reference
from tests.engine.reference_counters import Recount, duration, period
from tests.engine.scenarios import UNDO, Sent, Story, smallest, story

EXAMPLES = int(os.environ.get("CONNECT_REFERENCE_EXAMPLES", "300"))
EVENTS_MAX = int(os.environ.get("CONNECT_REFERENCE_EVENTS", "14"))
PARTS = 4
PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]


class Both:
    """One story, told to both."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.rulebook = Rulebook.compile(3, story.document, {})
        assert not [
            one.broken for one in (*self.rulebook.rules.values(), *self.rulebook.counters.values()) if one.broken
        ]
        self.engine = Simulation(self.rulebook, undo=UNDO)
        self.reference = Reference(story.document, UNDO)

    def tell(self) -> None:
        for step in self.story.steps:
            if isinstance(step, Sent):
                self.send(step)
            else:
                self.decide(step)
                self.compare_state()

    def send(self, sent: Sent) -> None:
        """Both learn what became of one action's sending."""
        going = [one for one in self.reference.originals if one.status in ("pending", "dispatched")]
        if going:
            chosen = going[sent.nth % len(going)]
            chosen.status, chosen.failure, chosen.attempts = sent.status, sent.failure, 1
            [mine] = [one for one in self.engine.actions.values() if not one.reverses and self.name(one) == chosen.name]
            self.engine.actions[mine.id] = replace(mine, status=sent.status, failure=sent.failure, attempts=1)

    def decide(self, event: EconomicEvent) -> None:
        now = event.received_at + timedelta(seconds=1)
        before = dict(self.engine.actions)
        decision = self.engine.decide(event, now, self.story.arms)
        answer = self.reference.decide(event, now, self.story.arms)
        assert self.outcomes(decision, answer) == answer.outcomes
        assert Tally(map(self.shown, decision.actions)) == Tally(map(shown, answer.actions))
        assert self.taken(decision, before) == taken_by(answer)

    def outcomes(self, decision: Decision, answer: Answer) -> dict[str, str]:
        return {trace.rule: trace.outcome for trace in decision.trace[: len(answer.outcomes)]}

    def taken(self, decision: Decision, before: dict[Any, RewardAction]) -> Tally[tuple[Any, ...]]:
        return Tally((*self.name(original), part) for original, part in taken(decision, before))

    def name(self, action: RewardAction) -> tuple[str, ...]:
        event = self.engine.events[action.event_id]
        return (event.external_id, action.rule_key, action.effect_key, action.user_id)

    def shown(self, action: RewardAction) -> tuple[Any, ...]:
        original = None if action.reverses is None else self.name(self.engine.actions[action.reverses])
        return (*self.name(action), Decimal(action.amount), action.unit, action.status, original)

    # --- state ---

    def compare_state(self) -> None:
        """Compares what the engine remembers with what the list of all that happened comes to."""
        mine = Tally((self.shown(one), Decimal(one.reversed)) for one in self.engine.actions.values())
        assert mine == Tally((shown(one), one.freed) for one in self.reference.given)
        values = self.engine.memory.values
        assert held(values, "limit|") == self.usage()
        assert held(values, "budget|") == {key: spent for key in values if (spent := self.spent(key))}
        assert held(values, "counter|") == self.totals()
        assert {key: found for key, one in values.items() if (found := places(one))} == self.places()
        for key, entries in self.engine.memory.windows.items():
            assert entries == self.windows().get(key, [])

    def used(self, sliding: bool) -> Iterator[tuple[str, datetime, Decimal]]:
        """(key, moment, what is used) of every event, subject and measure."""
        zone, seen = self.story.document.timezone, set[str]()
        for rule in self.story.document.rules:
            for limit in rule.limits:
                if (limit.within is not None) is not sliding:
                    continue
                about = "role" if limit.per in ("recipient", *(one.recipient for one in rule.actions)) else "rule"
                span = (
                    f"within:{int(duration(limit.within).total_seconds())}|"
                    if limit.within
                    else f"{limit.every}|{zone}"
                )
                measures = {"uses": limit.uses, f"amount:{rule.actions[0].unit}": limit.amount}
                for measure, subject in product([one for one, cap in measures.items() if cap], ["", *"abc"]):
                    key = f"limit|{rule.key}|{measure}|{limit.per}|{about}|{span}|PERIOD|{subject}"
                    if key in seen:
                        continue
                    seen.add(key)
                    for moment, used in self.reference.usage(limit, rule, subject, measure.split(":")[0]):
                        yield key.replace("PERIOD", label(limit, moment, self.reference.zone)), moment, used

    def usage(self) -> dict[str, Decimal]:
        sums: dict[str, Decimal] = {}
        for key, _, used in self.used(sliding=False):
            sums[key] = sums.get(key, Decimal(0)) + used
        return sums

    def windows(self) -> dict[str, list[tuple[datetime, Decimal]]]:
        found: dict[str, list[tuple[datetime, Decimal]]] = {}
        for key, moment, used in self.used(sliding=True):
            found.setdefault(key, []).append((moment, used))
        return {key: sorted(entries) for key, entries in found.items()}

    def spent(self, key: str) -> Decimal:
        return self.reference.spent(key.split("|")[1]) if key.startswith("budget|") else Decimal(0)

    def live_of(self, counter: Recount, subject: str) -> list[EconomicEvent]:
        facts = self.reference.facts
        return [one for one in facts if counter.counts(one, subject) and not counter.is_undone(one, facts)]

    def totals(self) -> dict[str, Decimal]:
        sums: dict[str, Decimal] = {}
        for name, counter in self.reference.counters.items():
            if counter.within is not None or counter.counter.kind == "streak":
                continue
            for subject in "abc":
                periods: dict[str, list[EconomicEvent]] = {}
                for one in self.live_of(counter, subject):
                    zone = counter.zone(one)
                    assert zone is not None
                    periods.setdefault(period(one.occurred_at, counter.counter.every or "ever", zone), []).append(one)
                for named, inside in periods.items():
                    key = f"counter|{self.rulebook.counters[name].id}|{named}||{subject}"
                    sums[key] = Decimal(str(counter.of(inside)))
        return {key: total for key, total in sums.items() if total}

    def places(self) -> dict[str, list[int]]:
        """Returns the steps of streaks and the moments of sliding windows, by key."""
        found: dict[str, list[int]] = {}
        for (name, counter), subject in product(self.reference.counters.items(), "abc"):
            live = self.live_of(counter, subject)
            key = f"counter|{self.rulebook.counters[name].id}|||{subject}"
            if counter.counter.kind == "streak":
                found[key] = sorted(counter.steps(live))
            elif counter.within is not None:
                found[key] = sorted((one.occurred_at - EPOCH) // timedelta(microseconds=1) for one in live)
        return {key: one for key, one in found.items() if one}


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def held(values: Mapping[str, StateValue], kind: str) -> dict[str, Decimal]:
    """Returns what is not nothing; of values told apart the number, without the values themselves."""
    mine = {key: one.value for key, one in values.items() if key.startswith(kind) and one.value}
    return {key: value for key, value in mine.items() if kind != "counter|" or key.split("|")[3] == ""}


def places(stored: StateValue) -> list[int]:
    detail = stored.detail or {}
    days = [day for first, last in detail.get("runs", []) for day in range(first, last + 1)]
    return sorted([*days, *(entry[0] for entry in detail.get("entries", []))])


def label(limit: Limit, moment: datetime, zone: ZoneInfo) -> str:
    return "" if limit.every is None else period(moment, limit.every, zone)


def shown(given: Given) -> tuple[Any, ...]:
    original = None if given.reverses is None else given.reverses.name
    return (*given.name, given.amount, given.effect.unit, given.status, original)


def taken_by(answer: Answer) -> Tally[tuple[Any, ...]]:
    undone = [
        (*one.reverses.name, one.amount)
        for one in answer.actions
        if one.reverses and one.reverses not in answer.actions
    ]
    return Tally([*undone, *((*original.name, part) for original, part in answer.cancelled)])


def differs(story: Story) -> str:
    try:
        Both(story).tell()
    except AssertionError as difference:
        return str(difference) or "they differ"
    return ""


@pytest.mark.parametrize("part", range(PARTS))
def test_the_engine_decides_as_the_specification_does(part: int) -> None:
    for seed in range(part, EXAMPLES, PARTS):
        told = story(Random(seed), EVENTS_MAX)
        if differs(told):
            least = smallest(told, lambda one: bool(differs(one)))
            pytest.fail(f"seed {seed}: {differs(least)}\n{spelled(least)}")


def spelled(story: Story) -> str:
    rules = msgspec.json.format(msgspec.json.encode(story.document)).decode()
    return "\n".join([rules, str(story.arms), *map(str, story.steps)])


@settings(
    max_examples=EXAMPLES // 10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=PHASES,
)
@given(st.randoms(use_true_random=False))
def test_the_engine_decides_as_the_specification_does_in_stories_that_shrink(chance: Random) -> None:
    Both(story(chance, EVENTS_MAX)).tell()
