"""Whatever a ruleset holds, its text reads back as the same; whatever a text holds, it is read or refused."""

from datetime import UTC

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from connect.authoring import check_ruleset, convert_ruleset, read_and_check, read_ruleset, write_yaml
from connect.authoring.write import ACTION_ORDER, DOCUMENT_ORDER, RULE_ORDER
from connect.errors import InvalidRuleset
from connect.model import (
    Budget,
    BudgetUse,
    Counter,
    Each,
    Effect,
    ExpectedAction,
    Group,
    Limit,
    Namespace,
    ReportedEvent,
    Reversal,
    RewardRule,
    Ruleset,
    RulesetTest,
    Safety,
    SamePath,
    Unit,
    Variants,
)
from tests.authoring.test_ruleset import DOCUMENT


@given(st.text() | st.text(alphabet="ab:,#-[]{}'\"!&*|>%@` \n\t\\0159.~=", max_size=60))
@settings(deadline=None)
def test_any_text_is_read_or_refused_with_a_place(text: str):
    try:
        read_and_check(text)
    except InvalidRuleset as error:
        refusals = error.errors
    else:
        return
    assert all(refusal.line for refusal in refusals)
    assert refusals


SYMBOLS = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,6}", fullmatch=True)
TRAPS = [
    *"on NO 010 0o17 0x1F 1_000 12:30 0.02 null ~ - ? | > # ! & * @ ` % = ' \" 2026-01-01 --- ... { [a \ufeff".split(),
    *("", " a", "a ", "- a", "a: b", "a:", "!x", "a\nb", "\na", "a\n", "a\n\n", "\n a\nb", "a \nb", "x # y", "a, b]"),
    *("\x85", "\u2028", "\t", "a\n\tb\n", "\r\n", "\x7f", "\U0001f600", "2026-01-01T00:00:00Z"),
]
TEXTS = st.sampled_from(TRAPS) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
MOMENTS = st.none() | st.datetimes(timezones=st.just(UTC))
AMOUNTS = st.none() | TEXTS | st.integers(-9, 9)
EACHES = st.builds(Each, items=TEXTS, name=st.just("item"), recipient=TEXTS, amount=AMOUNTS, share=st.none() | TEXTS)
EFFECTS = st.builds(
    Effect,
    target=SYMBOLS,
    command=SYMBOLS,
    unit=SYMBOLS,
    recipient=st.none() | TEXTS,
    amount=AMOUNTS,
    each=st.none() | EACHES,
    round=st.sampled_from([None, "down", "half_up"]),
    hold=st.sampled_from([None, "1s", "14d"]),
    review=st.booleans(),
    params=st.dictionaries(TEXTS, PLAIN, max_size=3),
    key=st.none() | SYMBOLS,
)
CAPS = TEXTS | st.integers(-9, 2**63 - 1)
PERIODS = st.sampled_from([None, "hour", "day", "week", "month", "ever"])
LENGTHS = st.sampled_from([None, "1s", "14d"])
PARTIES = st.sampled_from(["actor", "subject", "parties.referrer", "parties.0-a"])
SAMES = TEXTS | st.builds(SamePath, event=TEXTS, original=TEXTS)
LIMITS = st.builds(
    Limit,
    per=PARTIES | st.sampled_from(["recipient", "rule"]),
    every=PERIODS,
    within=LENGTHS,
    uses=st.none() | st.integers(1, 9),
    amount=st.none() | CAPS,
)
BUDGETS = st.builds(Budget, unit=SYMBOLS, cap=CAPS, refill_on_reversal=st.booleans(), closes=st.booleans())
BUDGET_USES = st.builds(BudgetUse, name=SYMBOLS, when_short=st.sampled_from(["deny", "clip"]))
SAFETIES = st.builds(
    Safety,
    review_above=st.dictionaries(SYMBOLS, CAPS, max_size=2),
    per_day=st.dictionaries(SYMBOLS, CAPS, max_size=2),
)
COUNTERS = st.builds(
    Counter,
    event_type=SYMBOLS,
    of=PARTIES,
    kind=st.sampled_from(["count", "sum", "distinct", "streak"]),
    value=st.none() | TEXTS,
    condition=TEXTS | st.lists(TEXTS, max_size=2),
    every=PERIODS,
    within=LENGTHS,
    grace=st.integers(0, 366),
    zone=st.none() | TEXTS,
    undone_by=st.none() | SYMBOLS,
    same=st.none() | SAMES,
    fraction=CAPS,
    start=st.sampled_from(["history", "publish"]),
)
COUNTER_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
GROUPS = st.builds(Group, pick=st.sampled_from(["first", "highest", "lowest"]), unit=st.none() | SYMBOLS)
REVERSALS = st.builds(
    Reversal,
    event_type=SYMBOLS,
    same=SAMES,
    source=st.sampled_from(["same", "any"]),
    fraction=CAPS,
    after_completion=st.sampled_from(["compensate", "review", "keep"]),
)
VARIANTS = st.builds(
    Variants,
    by=PARTIES,
    seed=TEXTS.filter(bool),
    arms=st.dictionaries(SYMBOLS, st.dictionaries(TEXTS, PLAIN, max_size=2), min_size=1, max_size=2),
    holdout=CAPS,
    coverage=CAPS,
    namespace=st.none() | st.builds(Namespace, name=SYMBOLS, start=CAPS, end=CAPS),
)
RULES = st.builds(
    RewardRule,
    key=SYMBOLS,
    event_type=SYMBOLS,
    actions=st.lists(EFFECTS, min_size=1, max_size=2),
    name=TEXTS,
    description=TEXTS,
    enabled=st.booleans(),
    starts_at=MOMENTS,
    ends_at=MOMENTS,
    priority=st.integers(-5, 5),
    condition=TEXTS | st.lists(TEXTS, max_size=3),
    group=st.none() | SYMBOLS,
    stop=st.booleans(),
    all_or_nothing=st.booleans(),
    limits=st.lists(LIMITS, max_size=2),
    budget=st.none() | BUDGET_USES,
    variants=st.none() | VARIANTS,
    reversal=st.none() | REVERSALS,
    formerly=st.none() | SYMBOLS,
)
NAMES = TEXTS.filter(bool)
FRACTIONS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)
JSON = st.recursive(PLAIN | FRACTIONS, lambda inner: st.dictionaries(TEXTS, inner, max_size=2), max_leaves=4)
EVENTS = st.builds(
    ReportedEvent,
    external_id=NAMES,
    event_type=SYMBOLS,
    source=st.none() | NAMES,
    occurred_at=MOMENTS,
    actor_user_id=st.none() | NAMES,
    primary_subject_user_id=st.none() | NAMES,
    parties=st.none() | st.dictionaries(NAMES, NAMES | st.lists(NAMES, max_size=2), max_size=2),
    context=st.none() | st.dictionaries(TEXTS, JSON, max_size=2),
)
EXPECTED = st.builds(
    ExpectedAction,
    rule=SYMBOLS,
    amount=CAPS,
    user_id=st.none() | NAMES,
    unit=st.none() | SYMBOLS,
    target=st.none() | SYMBOLS,
    command=st.none() | SYMBOLS,
    status=st.sampled_from([None, "pending", "awaiting_approval"]),
)
TESTS = st.builds(
    RulesetTest,
    name=NAMES,
    given=st.lists(EVENTS, min_size=1, max_size=2),
    expect=st.dictionaries(TEXTS, st.lists(EXPECTED, max_size=2), max_size=2),
    at=MOMENTS,
    arms=st.dictionaries(SYMBOLS, SYMBOLS, max_size=2),
)
UNITS = st.dictionaries(SYMBOLS, st.builds(Unit, scale=st.integers(0, 18)), max_size=2)
RULESETS = st.builds(
    Ruleset,
    timezone=TEXTS,
    units=UNITS,
    budgets=st.dictionaries(SYMBOLS, BUDGETS, max_size=2),
    safety=SAFETIES,
    counters=st.dictionaries(COUNTER_NAMES, COUNTERS, max_size=2),
    groups=st.dictionaries(SYMBOLS, GROUPS, max_size=2),
    schemas=st.dictionaries(SYMBOLS, st.dictionaries(TEXTS, JSON, max_size=2), max_size=1),
    rules=st.lists(RULES, max_size=2),
    tests=st.lists(TESTS, max_size=1),
)

FEWER = settings(deadline=None, max_examples=50)
"""A whole ruleset takes 70 ms to make up and to read."""


@given(RULESETS)
@FEWER
def test_what_is_written_reads_back_the_same(ruleset: Ruleset):
    assert read_ruleset(write_yaml(ruleset)) == ruleset


@given(RULESETS)
@FEWER
def test_a_ruleset_sent_as_json_reads_back_the_same(ruleset: Ruleset):
    assert convert_ruleset(msgspec.json.decode(msgspec.json.encode(ruleset))) == ruleset


@given(RULESETS)
@FEWER
def test_whatever_a_ruleset_says_its_check_only_tells(ruleset: Ruleset):
    for problem in check_ruleset(ruleset):
        assert problem.pointer.startswith("#")
        assert problem.message


def test_what_is_written_is_what_people_read():
    written = write_yaml(read_ruleset(DOCUMENT))
    assert (
        "  - key: cashback-2\n    name: 2 % back on purchases from 10 EUR\n    event_type: purchase.completed\n"
        in written
    )
    assert """      - '!has(context.tags) || !("employee" in context.tags)'\n""" in written
    assert "starts_at: '2026-09-01T00:00:00+02:00'\n" in written
    assert write_yaml(read_ruleset(written)) == written


def test_the_written_order_names_every_field_of_the_model():
    assert sorted(DOCUMENT_ORDER) == sorted(Ruleset.__struct_encode_fields__)
    assert sorted(RULE_ORDER) == sorted(RewardRule.__struct_encode_fields__)
    assert sorted(ACTION_ORDER) == sorted(Effect.__struct_encode_fields__)
