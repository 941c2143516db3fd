"""Random rulesets and stories: few users, small caps and moments near the edges of periods, so that rules collide."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from connect.model import EconomicEvent, Ruleset

ZONES = ["UTC", "Europe/Berlin", "America/New_York"]
EDGES = [
    datetime(2026, 10, 25, 0, 30, tzinfo=UTC),  # Berlin's clocks go back at 01:00
    datetime(2026, 3, 29, 0, 30, tzinfo=UTC),  # and forward
    datetime(2026, 11, 1, 5, 30, tzinfo=UTC),  # New York's go back at 06:00
    datetime(2026, 3, 8, 6, 30, tzinfo=UTC),  # and forward at 07:00
    datetime(2028, 2, 28, 22, 30, tzinfo=UTC),  # before a leap day
    datetime(2026, 12, 31, 22, 30, tzinfo=UTC),
]
TICK = timedelta(microseconds=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STEPS = [
    timedelta(0), TICK, -TICK, HOUR / 2, HOUR, HOUR * 3 / 2, HOUR * 6, HOUR * 6 - TICK, DAY, DAY - TICK, DAY * 2,
    DAY * 3, -DAY, -DAY * 2, DAY * 7, DAY * 7 - TICK, DAY * 8, -DAY * 7, DAY * 31, -DAY * 31,
]  # fmt: skip
UNDO = {"points": {"credit": "debit"}}
FRACTIONS = ["1", "0.5", "context.part / original.context.amount", "context.part / 300", "context.part / 100"]
FATES = [("completed", None), ("completed", None), ("dispatched", None), ("failed", "refused"), ("failed", "exhausted")]


class Sent(Struct, frozen=True):
    """A sending that ends: the n-th action there is (counted round) comes to this."""

    nth: int
    status: str
    failure: str | None


class Story(Struct, frozen=True):
    document: Ruleset
    steps: tuple[EconomicEvent | Sent, ...]
    arms: dict[str, str]


def maybe(strategy: st.SearchStrategy[Any], nothing: Any = None) -> st.SearchStrategy[Any]:
    return st.just(nothing) | strategy


def fields(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dict without what is None, as a document is written."""
    made = st.fixed_dictionaries(strategies)
    return made.map(lambda found: {name: value for name, value in found.items() if value is not None})


USERS = st.sampled_from("abc")
RARELY = st.sampled_from([False] * 8 + [True])
TYPES = st.sampled_from(["purchase.completed", "purchase.completed", "app.opened", "purchase.*"])
UNDOING = st.sampled_from(["purchase.refunded", "purchase.refunded", "purchase.*"])
SAME = st.sampled_from(["context.order", "context.order", {"this": "context.order", "original": "context.ticket"}])

LIMITS = fields(
    per=st.sampled_from(["recipient", "actor", "subject", "parties.referrer", "parties.team", "rule"]),
    span=st.sampled_from([{"every": one} for one in ("hour", "day", "week", "month", "ever")])
    | st.sampled_from([{"within": one} for one in ("1h", "6h", "1d", "7d")]),
    cap=st.sampled_from([{"uses": 1}, {"uses": 2}, {"amount": 12}, {"amount": "25"}, {"uses": 2, "amount": 30}]),
).map(lambda found: {"per": found["per"], **found["span"], **found["cap"]})

COUNTERS = fields(
    event_type=TYPES,
    of=st.sampled_from(["actor", "actor", "subject", "parties.team"]),
    kind=st.sampled_from(["count", "sum", "distinct", "streak"]),
    condition=maybe(st.just("context.amount >= 50")),
    every=maybe(st.sampled_from(["day", "week", "month"])),
    within=maybe(st.sampled_from(["6h", "1d", "7d"])),
    grace=st.sampled_from([0, 0, 1]),
    zone=maybe(st.sampled_from(["America/New_York", "context.zone"])),
    undone_by=maybe(UNDOING),
    same=st.just("context.order"),
    fraction=st.sampled_from(["1", "1", "context.part / original.context.amount"]),
)


def counter(found: dict[str, Any]) -> dict[str, Any]:
    """Made to be one that `check` lets through."""
    kind = found["kind"]
    if kind == "streak":
        found = {**found, "every": found.get("every", "day"), "within": None}
    elif "within" in found:
        found = {**found, "every": None}
    value = {"sum": "context.amount / 3", "distinct": "context.item"}.get(kind)
    found = {**found, "value": value, "grace": found["grace"] if kind == "streak" else None}
    if found.get("undone_by") is None:
        found = {**found, "same": None, "fraction": None}
    return {name: one for name, one in found.items() if one is not None}


CONDITIONS = st.sampled_from([
    *[[]] * 6, ["context.amount >= 50"], ["context.flag"], ["1 / (context.amount - 50) > 0"],
    ["counters.one == 2"], ["counters.one >= 2"], ["counters.one <= 3"], ["counters.one >= 1"], ["counters.two > 1"],
    ["counters.two == 1"], ["counters.two >= 1"], ["counters.one > 40"],
    ["has(parties.referrer)", "counters.two <= 60"],
])  # fmt: skip
AMOUNTS = st.sampled_from([
    ("10", None), ("context.amount * 0.1", "down"), ("context.amount / 3", "half_up"), ("context.amount / 7", "up"),
    ("counters.one", "half_even"), ("decimal('12345678901.4') * 0.0000000005", "up"),
])  # fmt: skip
HOW = st.sampled_from([
    *({"recipient": role} for role in ("actor", "actor", "actor", "subject", "parties.referrer", "parties.team")),
    *({"each": {"in": "context.items", "as": "item", "recipient": "item.seller", **part}}
      for part in ({"amount": "item.price"}, {"share": "item.share"}, {})),
])  # fmt: skip
EFFECTS = fields(
    paid=st.sampled_from([("points", "credit"), ("points", "credit"), ("nft", "mint")]),
    how=HOW,
    amount=AMOUNTS,
    review=RARELY,
)
REVERSALS = fields(
    event_type=UNDOING,
    same=SAME,
    source=st.sampled_from(["same", "any"]),
    fraction=st.sampled_from(FRACTIONS),
    after_completion=st.sampled_from(["compensate", "compensate", "review", "keep"]),
)
BUDGETS = st.sampled_from([None, None, ("pot", "deny"), ("pot", "clip"), ("jar", "deny"), ("jar", "clip")])
RULES = fields(
    unit=st.sampled_from(["points", "points", "money"]),
    event_type=TYPES,
    enabled=RARELY.map(lambda rarely: not rarely),
    priority=st.integers(0, 2),
    condition=CONDITIONS,
    group=st.sampled_from([False, False, True]),
    stop=RARELY,
    all_or_nothing=st.sampled_from([False, False, True]),
    limits=st.sampled_from([0, 0, 1, 2]).flatmap(lambda size: st.lists(LIMITS, min_size=size, max_size=size)),
    actions=st.lists(EFFECTS, min_size=1, max_size=3),
    reversal=st.none() | REVERSALS | REVERSALS,
    budget=BUDGETS,
    has_variants=RARELY,
    window=st.sampled_from([(None, None)] * 5 + [(0, None), (None, 0), (-1, 1), (0, 1)]),
)


def rule(found: dict[str, Any], number: int, edge: datetime) -> dict[str, Any]:
    """The rule as a document has it."""
    unit, budget = found.pop("unit"), found.pop("budget", None)
    if found.pop("group"):
        found["group"] = "best" if unit == "points" else "first"
    if found.pop("has_variants"):
        arms = {"one": {"weight": 50, "rate": "0.5"}}
        found["variants"] = {"by": "actor", "seed": "s", "holdout": 50, "arms": arms}
    if budget is not None:
        found["budget"] = {"from": f"{budget[0]}-{unit}", "when_short": budget[1]}
    for bound, days in zip(("starts_at", "ends_at"), found.pop("window"), strict=True):
        if days is not None:
            found[bound] = edge + DAY * days
    found["actions"] = [effect(one, n, unit) for n, one in enumerate(found["actions"])]
    return {"key": f"r{number}", **found}


def effect(found: dict[str, Any], number: int, unit: str) -> dict[str, Any]:
    (target, command), (text, mode) = found["paid"], found["amount"]
    made = {"key": f"e{number}", "target": target, "command": command, "unit": unit, "amount": text, **found["how"]}
    return made | {"review": found["review"]} | ({"round": mode} if mode else {})


RAILS = st.sampled_from([{}, {}, {"review_above": {"points": 15}, "per_day": {"points": 40, "money": "33.5"}}])
CAPS = fields(cap=st.sampled_from([9, 20, "35", 80]), refill_on_reversal=st.booleans(), closes=RARELY)
DOCUMENTS = fields(
    timezone=st.sampled_from(ZONES),
    budgets=fields(pot=CAPS, jar=CAPS),
    safety=RAILS,
    counters=fields(one=COUNTERS, two=COUNTERS),
    pick=st.sampled_from(["highest", "lowest"]),
    rules=st.lists(RULES, min_size=2, max_size=5),
)


def document(found: dict[str, Any], edge: datetime) -> Ruleset:
    units = ("points", "money")
    made = {
        "timezone": found["timezone"],
        "units": {"points": {"scale": 0}, "money": {"scale": 2}},
        "budgets": {
            f"{name}-{unit}": {"unit": unit, **one} for name, one in found["budgets"].items() for unit in units
        },
        "safety": found["safety"],
        "counters": {name: counter(one) for name, one in found["counters"].items()},
        "groups": {"best": {"pick": found["pick"], "unit": "points"}, "first": {"pick": "first"}},
        "rules": [rule(dict(one), number, edge) for number, one in enumerate(found["rules"])],
    }
    return msgspec.convert(made, Ruleset)


ITEMS = st.lists(
    fields(seller=maybe(USERS), price=st.sampled_from([0, 4, 7]), share=st.sampled_from([5000, 3333, 10000])).map(
        lambda found: {"seller": None, **found}
    ),
    max_size=2,
)
CONTEXTS = fields(
    order=st.sampled_from(["o1", "o1", "o2", "o2", 7, None]),
    ticket=maybe(st.sampled_from(["o1", "o2"])),
    amount=st.sampled_from([10, 50, 99, 100]),
    part=st.sampled_from([10, 33, 50, 100]),
    flag=maybe(st.booleans()),
    item=maybe(st.sampled_from(["x", "y", "z"])),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    items=maybe(ITEMS),
)


EVENTS = fields(
    step=st.sampled_from(STEPS),
    later=st.sampled_from([timedelta(0), timedelta(0), HOUR, -DAY]),
    source=st.sampled_from(["shop", "shop", "shop", "till"]),
    event_type=st.sampled_from([*["purchase.completed"] * 3, *["purchase.refunded"] * 2, "app.opened"]),
    actor_user_id=st.sampled_from(["a", "a", "a", "b", "b", None]),
    primary_subject_user_id=maybe(USERS),
    referrer=maybe(USERS),
    team=st.lists(USERS, max_size=3),
    context=CONTEXTS,
    effects=RARELY.map(lambda rarely: "none" if rarely else "all"),
    sent=st.sampled_from([None] * 8 + [(nth, *fate) for nth in (0, 1, 5) for fate in FATES]),
)


def event(found: dict[str, Any], number: int, edge: datetime) -> EconomicEvent:
    occurred_at = edge + found.pop("step") + found.pop("later")
    parties = {"referrer": found.pop("referrer", None), "team": found.pop("team")}
    return EconomicEvent(
        id=UUID(int=number + 1),
        external_id=f"x{number}",
        occurred_at=occurred_at,
        received_at=edge + DAY * 60 + timedelta(minutes=number),
        parties={role: named for role, named in parties.items() if named},
        **found,
    )


def story(edge: datetime, written: dict[str, Any], facts: list[dict[str, Any]], arms: list[str]) -> Story:
    made = document(written, edge)
    steps: list[EconomicEvent | Sent] = []
    for number, fact in enumerate(facts):
        found = dict(fact)
        sent = found.pop("sent", None)
        steps.append(event(found, number, edge))
        if sent is not None:
            steps.append(Sent(*sent))
    variants = {one.key: arm for one, arm in zip(made.rules, arms, strict=False) if one.variants}
    return Story(made, tuple(steps), variants)


ARMS = st.lists(st.sampled_from(["one", "one", "holdout"]), min_size=5, max_size=5)


def stories(events_max: int) -> st.SearchStrategy[Story]:
    return st.builds(
        story, st.sampled_from(EDGES), DOCUMENTS, st.lists(EVENTS, min_size=events_max // 2, max_size=events_max), ARMS
    )
