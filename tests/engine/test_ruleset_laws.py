"""Whatever a ruleset holds, its text reads back as the same; whatever a text holds, it is read or refused."""

from datetime import UTC

from hypothesis import given, settings
from hypothesis import strategies as st

from connect.engine.ruleset import read_and_check, read_ruleset, write_yaml
from connect.engine.ruleset.write import ACTION_ORDER, RULE_ORDER
from connect.errors import InvalidRuleset
from connect.model import Each, Effect, RewardRule, Ruleset, Unit
from tests.engine.test_ruleset import DOCUMENT


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
EACHES = st.builds(Each, items=TEXTS, name=st.just("item"), recipient=TEXTS, amount=AMOUNTS)
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
    all_or_nothing=st.booleans(),
)
UNITS = st.dictionaries(SYMBOLS, st.builds(Unit, scale=st.integers(0, 18)), max_size=2)
RULESETS = st.builds(Ruleset, timezone=TEXTS, units=UNITS, rules=st.lists(RULES, max_size=2))


@given(RULESETS)
@settings(deadline=None)
def test_what_is_written_reads_back_the_same(ruleset: Ruleset):
    assert read_ruleset(write_yaml(ruleset)) == ruleset


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
    assert sorted(RULE_ORDER) == sorted(set(RewardRule.__struct_encode_fields__) - {"actions"})
    assert sorted(ACTION_ORDER) == sorted(Effect.__struct_encode_fields__)
