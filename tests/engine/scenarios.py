"""Random rulesets and stories: few users, small caps and moments near the edges of periods, so that rules collide.

All is chosen by one `random.Random`: seeded for many dense stories, or Hypothesis' own for ones that shrink.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from connect.model import EconomicEvent, RewardRule, Ruleset

EDGES = [
    datetime(2026, 10, 25, 0, 30, tzinfo=UTC),  # Berlin's clocks go back at 01:00
    datetime(2026, 3, 29, 0, 30, tzinfo=UTC),  # and forward
    datetime(2026, 11, 1, 5, 30, tzinfo=UTC),  # New York's go back at 06:00
    datetime(2026, 3, 8, 6, 30, tzinfo=UTC),  # and forward at 07:00
    datetime(2028, 2, 28, 22, 30, tzinfo=UTC),  # before a leap day
    datetime(2026, 12, 31, 22, 30, tzinfo=UTC),
]
TICK, HOUR, DAY = timedelta(microseconds=1), timedelta(hours=1), timedelta(days=1)
STEPS = [
    timedelta(0), timedelta(0), TICK, -TICK, HOUR / 2, HOUR, HOUR * 3 / 2, HOUR * 6, HOUR * 6 - TICK, DAY, DAY - TICK,
    DAY * 2, DAY * 3, -DAY, -DAY * 2, DAY * 7, DAY * 7 - TICK, DAY * 8, -DAY * 7, DAY * 31, -DAY * 31,
]  # fmt: skip
PART_OF_IT = "context.part / original.context.amount"
UNDO = {"points": {"credit": "debit"}}
FATES = [
    ("completed", None),
    ("completed", None),
    ("dispatched", None),
    ("pending", None),
    ("failed", "refused"),
    ("failed", "exhausted"),
]


class Sent(Struct, frozen=True):
    """A sending that ends: the n-th action that is on its way (counted round) comes to this."""

    nth: int
    status: str
    failure: str | None


class Story(Struct, frozen=True):
    document: Ruleset
    steps: tuple[EconomicEvent | Sent, ...]
    arms: dict[str, str]


class Chance:
    """Says what is chosen, and how likely."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.counts = self.one_in(3)
        """A story about counters: every rule reads one, and little else stands in its way."""

    def of(self, *options: Any) -> Any:
        return options[self.random.randrange(len(options))]

    def one_in(self, times: int) -> bool:
        return self.random.randrange(times) == times - 1

    def several(self, most: int, make: Callable[[int], Any], least: int = 0) -> list[Any]:
        return [make(number) for number in range(self.random.randint(least, most))]


def given(**found: Any) -> dict[str, Any]:
    """Without what is None, as a document is written."""
    return {name: value for name, value in found.items() if value is not None}


def story(random: Random, events_max: int) -> Story:
    """Makes one story for one seed: a ruleset, facts, and what becomes of some actions on their way."""
    chance = Chance(random)
    edge = chance.of(*EDGES)
    made = document(chance, edge)
    steps: list[EconomicEvent | Sent] = []
    for number in range(random.randint(events_max // 2, events_max)):
        steps.append(event(chance, number, edge))
        if chance.one_in(3):
            steps.append(Sent(chance.of(0, 0, 1, 3, 7), *chance.of(*FATES)))
    arms = {rule.key: chance.of("one", "one", "holdout") for rule in made.rules if rule.variants}
    return Story(made, tuple(steps), arms)


# --- rulesets ------------------------------------------------------------------------------------


def document(chance: Chance, edge: datetime) -> Ruleset:
    made = {
        "timezone": chance.of("UTC", "Europe/Berlin", "America/New_York"),
        "units": {"points": {"scale": 0}, "money": {"scale": 2}},
        "budgets": {f"{name}-{unit}": budget(chance, unit) for name in ("pot", "jar") for unit in ("points", "money")},
        "safety": chance.of({}, {}, {"review_above": {"points": 15}, "per_day": {"points": 40, "money": "33.5"}}),
        "counters": {name: counter(chance) for name in ("one", "two")},
        "groups": {"best": {"pick": chance.of("highest", "lowest"), "unit": "points"}, "first": {"pick": "first"}},
        "rules": chance.several(5, lambda number: rule(chance, number, edge), least=2),
    }
    return msgspec.convert(made, Ruleset)


def budget(chance: Chance, unit: str) -> dict[str, Any]:
    refills, closes = chance.one_in(2), chance.one_in(4)
    return {"unit": unit, "cap": chance.of(9, 20, "35", 80), "refill_on_reversal": refills, "closes": closes}


def counter(chance: Chance) -> dict[str, Any]:
    kind = chance.of("count", "count", "sum", "distinct", "streak")
    every, within = chance.of(("day", None), ("week", None), ("month", None), (None, "6h"), (None, "7d"), (None, None))
    if kind == "streak":
        every, within = every or "day", None
    undone = {"undone_by": chance.of("purchase.refunded", "purchase.refunded", "purchase.*"), "same": "context.order"}
    undone["fraction"] = chance.of("1", "1", "1", PART_OF_IT)
    return given(
        event_type=chance.of(*["purchase.completed"] * (9 if chance.counts else 2), "app.opened", "purchase.*"),
        of=chance.of(*["actor"] * (9 if chance.counts else 3), "subject", "parties.team"),
        kind=kind,
        value={"sum": "context.amount / 3", "distinct": "context.item"}.get(kind),
        condition=chance.of(None, None, "context.amount >= 50"),
        every=every,
        within=within,
        grace=chance.of(0, 0, 1) if kind == "streak" else None,
        zone=chance.of(None, None, "America/New_York", "context.zone"),
        **(undone if chance.counts else chance.of({}, undone, undone)),
    )


READING = [
    ["counters.one == 2"], ["counters.one >= 2"], ["counters.one <= 3"], ["counters.one >= 1"], ["counters.two > 1"],
    ["counters.two == 1"], ["counters.two >= 1"], ["counters.one > 40"], ["counters.one >= 3"], ["counters.two >= 3"],
    ["has(parties.referrer)", "counters.two <= 60"], ["counters.one + counters.two >= 3"],
]  # fmt: skip
CONDITIONS = [
    *[[]] * 9, ["context.amount >= 50"], ["context.flag"], ["1 / (context.amount - 50) > 0"], *READING
]  # fmt: skip


def rule(chance: Chance, number: int, edge: datetime) -> dict[str, Any]:
    unit = chance.of("points", "points", "money")
    starts, ends = chance.of(*[(None, None)] * 12, (0, None), (None, 0), (-1, 1), (0, 1))
    arms = {"by": "actor", "seed": "s", "holdout": 50, "arms": {"one": {"weight": 50, "rate": "0.5"}}}
    drawn = {"from": f"{chance.of('pot', 'jar')}-{unit}", "when_short": chance.of("deny", "clip")}
    return given(
        key=f"r{number}",
        event_type=chance.of(*["purchase.completed"] * 3, "app.opened", "purchase.*"),
        enabled=not chance.one_in(15),
        priority=chance.of(0, 1, 2),
        condition=chance.of(*READING if chance.counts else CONDITIONS),
        group=None if chance.counts else chance.of(None, "best" if unit == "points" else "first"),
        stop=chance.one_in(9),
        all_or_nothing=chance.one_in(4),
        limits=[limit(chance) for _ in range(0 if chance.counts else chance.of(0, 0, 1, 2))],
        actions=chance.several(3, lambda place: effect(chance, place, unit), least=1),
        reversal=chance.of(None, None if chance.counts else reversal(chance), reversal(chance)),
        budget=chance.of(None, None, drawn),
        variants=arms if chance.one_in(8) else None,
        starts_at=None if starts is None else edge + DAY * starts,
        ends_at=None if ends is None else edge + DAY * ends,
    )


def limit(chance: Chance) -> dict[str, Any]:
    span = chance.of(*({"every": one} for one in ("hour", "day", "week", "month", "ever")), {"within": "1h"},
                     {"within": "6h"}, {"within": "1d"}, {"within": "7d"})  # fmt: skip
    cap = chance.of({"uses": 1}, {"uses": 2}, {"amount": 12}, {"amount": "25"}, {"uses": 2, "amount": 30})
    per = chance.of("recipient", "recipient", "actor", "subject", "parties.referrer", "parties.team", "rule")
    return {"per": per, **span, **cap}


def reversal(chance: Chance) -> dict[str, Any]:
    elsewhere = {"this": "context.order", "original": "context.ticket"}
    return {
        "event_type": chance.of("purchase.refunded", "purchase.refunded", "purchase.refunded", "purchase.*"),
        "same": chance.of("context.order", "context.order", elsewhere),
        "source": chance.of("same", "any"),
        "fraction": chance.of("1", "0.5", PART_OF_IT, "context.part / 300", "context.part / 100"),
        "after_completion": chance.of("compensate", "compensate", "review", "keep"),
    }  # fmt: skip


def effect(chance: Chance, number: int, unit: str) -> dict[str, Any]:
    text, mode = chance.of(("10", None), ("context.amount * 0.1", "down"), ("context.amount / 3", "half_up"),
                           ("context.amount / 7", "up"), ("counters.one", "half_even"),
                           ("decimal('12345678901.4') * 0.0000000005", "up"))  # fmt: skip
    target, command = chance.of(("points", "credit"), ("points", "credit"), ("nft", "mint"))
    listed = {"in": "context.items", "as": "item", "recipient": "item.seller"}
    how = chance.of(
        *({"recipient": role} for role in ("actor", "actor", "actor", "subject", "parties.referrer", "parties.team")),
        *({"each": {**listed, **part}} for part in ({"amount": "item.price"}, {"share": "item.share"}, {})),
    )
    made = {"key": f"e{number}", "target": target, "command": command, "unit": unit, "amount": text, **how}
    return made | given(round=mode, review=True if chance.one_in(12) else None)


# --- events --------------------------------------------------------------------------------------


def event(chance: Chance, number: int, edge: datetime) -> EconomicEvent:
    users = ("a", "b", "c")
    referrer, team = chance.of(None, *users), chance.several(2, lambda _: chance.of(*users))
    kinds = ["purchase.completed"] * 4 + ["purchase.refunded"] * 3 + ["app.opened"]
    return EconomicEvent(
        id=UUID(int=number + 1),
        external_id=f"x{number}",
        source="shop" if chance.counts else chance.of("shop", "shop", "shop", "shop", "till"),
        event_type=chance.of(*kinds),
        occurred_at=edge + chance.of(*STEPS) + chance.of(timedelta(0), timedelta(0), HOUR, -DAY),
        received_at=edge + DAY * 60 + timedelta(minutes=number),
        actor_user_id=chance.of("a", "a", "a", "a", "b") if chance.counts else chance.of("a", "a", "a", "b", "b", None),
        primary_subject_user_id=chance.of(None, *users),
        parties=given(referrer=referrer, team=team or None),
        context=context(chance),
        effects="none" if chance.one_in(30 if chance.counts else 15) else "all",
    )


def context(chance: Chance) -> dict[str, Any]:
    def item(_: int) -> dict[str, Any]:
        seller, price = chance.of("a", "b", "c", None), chance.of(0, 4, 7)
        return {"seller": seller, "price": price, "share": chance.of(5000, 5000, 3333, 10000)}

    return given(
        order=chance.of("o1", "o2", "o3", "o4") if chance.counts else chance.of("o1", "o1", "o2", "o2", 7, None),
        ticket=chance.of(None, "o1", "o2"),
        amount=chance.of(10, 50, 99, 100),
        part=chance.of(10, 33, 50, 100, 100),
        flag=chance.of(None, True, False),
        item=chance.of(None, "x", "y", "z"),
        zone=chance.of("UTC", "Europe/Berlin", "America/New_York"),
        items=chance.several(2, item, least=1),
    )


# --- smaller stories -----------------------------------------------------------------------------


def smaller(told: Story) -> Iterator[Story]:
    """The story without some of its steps, or one of its rules, limits or effects."""
    steps, rules = told.steps, told.document.rules
    for size in (8, 4, 2, 1):
        for place in range(len(steps) - size, -1, -size):
            yield replace(told, steps=(*steps[:place], *steps[place + size :]))
    for place, one in enumerate(rules):
        before, after = rules[:place], rules[place + 1 :]
        less: list[RewardRule] = [
            replace(one, **{name: value})
            for name, value in (
                ("limits", []),
                ("condition", []),
                ("group", None),
                ("budget", None),
                ("reversal", None),
            )
        ]
        less += [replace(one, actions=[kept]) for kept in one.actions]
        for rules_then in ([*before, *after], *([*before, other, *after] for other in less)):
            if rules_then != rules:
                yield replace(told, document=replace(told.document, rules=rules_then))


def smallest(told: Story, fails: Callable[[Story], bool]) -> Story:
    """A story that fails and of which nothing can be left out."""
    while (less := next((one for one in smaller(told) if fails(one)), None)) is not None:
        told = less
    return told
