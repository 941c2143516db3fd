"""Amounts as text, rounding, splitting, and the dialect rules write them in: examples to read, laws for the rest."""

import decimal
import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from connect.engine.amounts import CONTEXT, format_amount, parse_amount, round_amount, split_amount
from connect.engine.expression import ExpressionError, Failed, Missing, compile_amount, make_activation

AMOUNT_TEXTS = st.from_regex(r"(0|[1-9][0-9]{0,59})(\.[0-9]{1,18})?", fullmatch=True)
SCALES = st.integers(0, 18)
MODES = {
    "down": decimal.ROUND_DOWN,
    "up": decimal.ROUND_UP,
    "half_even": decimal.ROUND_HALF_EVEN,
    "half_up": decimal.ROUND_HALF_UP,
}


NO_AMOUNTS = "| 1|1 |+1|-1|01|1.|.5|1e3|1e1000000|NaN|Infinity|1_000|1,5|1٣|1.٣|1\n".split("|")


@pytest.mark.parametrize("text", [*NO_AMOUNTS, "9" * 61, "0." + "1" * 19])
def test_what_is_not_plain_digits_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount: write digits"):
        parse_amount(text)


@given(AMOUNT_TEXTS)
def test_an_amount_survives_writing_and_reading(text: str) -> None:
    value = parse_amount(text)
    written = format_amount(value)
    assert parse_amount(written) == value
    assert not written.endswith("." if "." not in written else ("0", "."))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("259", "259"),
        ("2.50", "2.5"),
        ("0.00", "0"),
        ("-0.0", "0"),
        ("1E+3", "1000"),
        ("1E-18", "0." + "0" * 17 + "1"),
        ("100", "100"),
        ("-2.50", "-2.5"),
        ("9" * 60 + "." + "9" * 18, "9" * 60 + "." + "9" * 18),
    ],
)
def test_an_amount_is_written_plainly(value: str, expected: str) -> None:
    assert format_amount(Decimal(value)) == expected


@pytest.mark.parametrize(
    ("value", "scale", "mode", "expected"),
    [
        ("2.5", 0, "down", "2"),
        ("2.5", 0, "up", "3"),
        ("2.5", 0, "half_even", "2"),
        ("3.5", 0, "half_even", "4"),
        ("2.5", 0, "half_up", "3"),
        ("-2.5", 0, "down", "-2"),
        ("-2.5", 0, "half_up", "-3"),
        ("0.005", 2, "half_even", "0"),
        ("1.23", 2, None, "1.23"),
        ("1.230", 2, None, "1.23"),
    ],
)
def test_rounding_by_each_mode(value: str, scale: int, mode, expected: str) -> None:
    assert round_amount(Decimal(value), scale, mode) == Decimal(expected)


@given(AMOUNT_TEXTS, SCALES, st.sampled_from(sorted(MODES)))
def test_rounding_is_what_decimal_itself_does(text: str, scale: int, mode) -> None:
    value = Decimal(text)
    expected = value.quantize(Decimal(1).scaleb(-scale), MODES[mode], decimal.Context(prec=300))
    assert round_amount(value, scale, mode) == expected
    assert round_amount(expected, scale, None) == expected


@given(AMOUNT_TEXTS, SCALES)
def test_no_digit_is_lost_unless_a_mode_says_how(text: str, scale: int) -> None:
    value = Decimal(text)
    if value == round_amount(value, scale, "down"):
        assert round_amount(value, scale, None) == value
    else:
        with pytest.raises(ValueError, match=r"say how to round it"):
            round_amount(value, scale, None)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1E+400"])
def test_what_is_no_amount_cannot_be_rounded(value: str) -> None:
    with pytest.raises(ValueError, match="too large"):
        round_amount(Decimal(value), 0, "down")


@st.composite
def shares(draw: st.DrawFn) -> list[int]:
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), max_size=9)))
    return [high - low for low, high in zip([0, *cuts], [*cuts, 10_000], strict=True)]


@given(st.integers(0, 10**60 - 1), SCALES, shares())
def test_the_parts_of_a_whole_sum_to_it_exactly(units: int, scale: int, basis_points: list[int]) -> None:
    total = Decimal(units).scaleb(-scale, CONTEXT)
    parts = split_amount(total, basis_points, scale)
    assert sum(int(part.scaleb(scale, CONTEXT)) for part in parts) == units
    for part, share in zip(parts, basis_points, strict=True):
        assert part == round_amount(part, scale, None)
        exact_units = decimal.Context(prec=200).divide(Decimal(units * share), Decimal(10_000))
        assert abs(part.scaleb(scale, CONTEXT) - exact_units) < 1  # nobody is a whole smallest unit off
        assert share or not part


@pytest.mark.parametrize(
    ("total", "basis_points", "scale", "expected"),
    [
        ("100", [3_333, 3_333, 3_334], 0, ["33", "33", "34"]),
        ("1", [5_000, 5_000], 0, ["1", "0"]),
        ("2", [3_333, 3_333, 3_334], 0, ["1", "0", "1"]),
        ("0.000000000000000001", [1, 9_999], 18, ["0", "0.000000000000000001"]),
        ("0", [10_000], 2, ["0"]),
    ],
)
def test_the_smallest_units_left_over_go_to_who_lost_most(
    total: str, basis_points: list[int], scale: int, expected: list[str]
) -> None:
    assert split_amount(Decimal(total), basis_points, scale) == [Decimal(part) for part in expected]


@pytest.mark.parametrize(
    ("total", "basis_points", "said"),
    [
        ("1", [5_000], "sum to 10,000"),
        ("1", [-1, 10_001], "sum to 10,000"),
        ("1", [], "sum to 10,000"),
        ("-1", [10_000], "negative"),
        ("0.5", [10_000], "more than 0 digits"),
    ],
)
def test_a_split_that_cannot_be_exact_is_refused(total: str, basis_points: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        split_amount(Decimal(total), basis_points, 0)


CONTEXT_OF_EVENT = {
    "minor": 1999,
    "rate": 1.25,
    "exact": Decimal("0.1"),
    "huge": Decimal("1e99999"),
    "text": "12.50",
    "wei": "1500000000000000001",
    "nothing": None,
    "yes": True,
    "zero": 0,
    "items": [{"price": 5}],
    "rates": {"gold": 3, "low": 0.5},
    "tier": "gold",
}
EVENT = make_activation({"context": CONTEXT_OF_EVENT, "variant": {"rate": 0.08}, "counters": {"n": 3}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("context.minor * 0.02", "39.98"),
        ("(context.minor - 500) * 0.02", "29.98"),
        ("12345 * 15 / 1000", "185.175"),
        ("5 / 2", "2.5"),
        ("0.1 + 0.2", "0.3"),
        ("context.rate * 3 + context.exact", "3.85"),
        ("context.minor / 30 * 30", "1999"),
        ("-context.minor - -1", "-1998"),
        ("- 0.5 + .5 + 1e3 + 0x10", "1016"),
        ("min(context.minor, 5, 7) + max(1, 2)", "7"),
        ("decimal(context.text) * 2", "25"),
        ('decimal("0.000000000000000001")', "0.000000000000000001"),
        ("scaled(context.wei, 18)", "1.500000000000000001"),
        ("context.rates[context.tier] + context.items[0].price + context.rates['low']", "8.5"),
        ("context.minor * variant.rate * counters.n", "479.76"),
        ("context.yes ? 1 : 2", "1"),
        ('context.minor > 5000 ? 3 : context.tier == "gold" ? 2 : 1', "2"),
        ("(context.text == '?:,(' ? 1 : 2) + (context.yes && 5 / 2 == 2 ? 10 : 20)", "12"),
        ('max(context.tier in ["silver", "gold"] ? 5 : 0, {"a": 1}.a == 1 ? 7 : 0)', "7"),
        ("context.yes // is it so? yes: it is\n ? 1 : 2", "1"),
        (r"""context.tier == r'\d?' || '''it's "?"''' == "\"?" ? 1 : 2""", "2"),
        ("context.yes ? 1 : context.absent", "1"),
    ],
)
def test_an_amount_is_exact(text: str, expected: str) -> None:
    assert compile_amount(text).evaluate(EVENT) == Decimal(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("context.absent * 2", Missing("context.absent")),
        ("context.nothing.deeper", Missing("context.nothing.deeper")),
        ("context.items[1].price", Missing("context.items[1]")),
        ("min(1, context.absent)", Missing("context.absent")),
        ("context.absent > 1 ? 1 : 2", Missing("context.absent")),
        ("context.rates[context.text]", Missing('context.rates["12.50"]')),
        ("context.rates[context.rate]", Failed("context.rates is indexed by a number, not by text or a whole number")),
        ("context.tier[context.zero]", Failed("context.tier is text, which has no [0]")),
        ("context.minor / context.zero", Failed("division by zero")),
        ("context.yes + 1", Failed("context.yes is true or false, not a number")),
        ("context.huge / 3", Failed("context.huge is 1e+99999, which is no amount")),
        ("context.nothing", Failed("context.nothing is null, not a number")),
        ("context.items", Failed("context.items is a list, not a number")),
        ("decimal(context.minor)", Failed("context.minor is a number: decimal() takes text")),
        ("context.minor ? 1 : 2", Failed("the condition gave int, not true or false")),
        ("context.text", "is text, not a number: write decimal(context.text)"),
        ("decimal(context.tier)", "context.tier is 'gold': decimal() takes digits"),
        ("scaled(context.text, 18)", "scaled() takes up to 60 digits only"),
        ("1e59 * 10", "more than 60 digits before the point"),
        ("(context.minor * 1e50 + 1e-18) * (context.minor * 1e50 + 1e-18)", "more than 100 digits on the way"),
    ],
)
def test_an_amount_that_cannot_be_had_is_missing_or_failed(text: str, expected) -> None:
    outcome = compile_amount(text).evaluate(EVENT)
    if isinstance(expected, str):
        assert isinstance(outcome, Failed)
        assert expected in outcome.reason
    else:
        assert outcome == expected


@pytest.mark.parametrize("value", [*NO_AMOUNTS, "1" * 61])
def test_text_that_is_no_amount_never_becomes_a_decimal(value: str) -> None:
    event = make_activation({"context": {"text": value}})
    assert isinstance(compile_amount("decimal(context.text)").evaluate(event), Failed)
    assert isinstance(compile_amount("scaled(context.text, 2)").evaluate(event), Failed)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("contxt.minor", 1, "unknown name contxt"),
        ("context.minor * ratio", 17, "unknown name ratio"),
        ("round(context.minor)", 1, "unknown function round"),
        ("1234567890123456", 1, "more than 15 significant digits"),
        ("1 + 0.1234567890123456", 5, "more than 15 significant digits"),
        ("1e60", 1, "out of range"),
        ("1e-19", 1, "out of range"),
        ("5u", 1, "uint is not a number"),
        ('"5"', 1, "string is not a number"),
        ("true", 1, "bool is not a number"),
        ("5 > 3", 3, "> gives true or false"),
        ("has(context.a)", 4, "has() gives true or false"),
        ("context", 1, "context is an object"),
        ("parties.referrer", 8, "parties is not a number"),
        ("5 % 2", 3, "% cannot stand in an amount"),
        ("size(context.items)", 5, "size cannot stand in an amount"),
        ("context.items.map(i, i.price)", 18, "a loop over a list"),
        ("context.minor / 0", 15, "division by zero"),
        ("1 + 5 / (2 - 2)", 7, "division by zero"),
        ("(1e59 + 1e-18) * (1e59 + 1e-18)", 16, "more than 100 digits"),
        ("min(5)", 4, "min takes two or more numbers"),
        ("decimal()", 8, "decimal takes one text"),
        ("decimal(5)", 9, "takes text"),
        ("scaled(context.wei, 19)", 7, "0 to 18"),
        ('decimal("1e5")', 9, "decimal() takes digits"),
        ("context.yes ? 1", 16, "ends too early"),
        ("1 ? 2 : 3", 1, "must be true or false, this is int"),
        ("1 + (context.a == 1 && contxt.b ? 1 : 2)", 24, "unknown name contxt"),
        ("1 + (context.a == 1 && 1 == 'a' ? 1 : 2)", 26, "no matching overload"),
        ("(min(1, 2) == 1 ? 1 : 2)", 2, "min works in amounts only"),
        ("0e" + "9" * 4000, 1, "cannot be read"),
        ("(" * 2000 + "1", 1, "nested too deeply"),
        ("1" + " + 1" * 900, 1, "nested too deeply"),
    ],
)
def test_what_may_not_stand_in_an_amount_is_refused_at_its_place(text: str, column: int, message: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_amount(text)
    problem = raised.value.problems[0]
    assert (problem.line, problem.column) == (1, column)
    assert message in problem.message


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("500", 0),
        ("2.50", 1),
        ("context.minor", 0),
        ("context.minor * 3 + context.other", 0),
        ("context.minor * 0.02", 2),
        ("context.minor / 100", 2),
        ("context.minor * 15 / 1000", 3),
        ("1 / 4", 2),
        ("context.minor / 3", None),
        ("context.minor / context.other", None),
        ("context.minor * variant.rate", None),
        ("decimal(context.text)", 18),
        ("scaled(context.wei, 6) * 2", 6),
        ("context.minor > 5 ? 1 : 0.5", 1),
        ("min(context.minor, -2.25)", 2),
    ],
)
def test_round_is_required_where_digits_can_exceed_the_scale(text: str, bound: int | None) -> None:
    amount = compile_amount(text)
    assert amount.digits_bound == bound
    assert [amount.can_exceed_scale(scale) for scale in (0, 2, 18)] == [
        bound is None or bound > scale for scale in (0, 2, 18)
    ]


def test_an_amount_knows_its_reads_and_the_warnings_of_its_tests() -> None:
    amount = compile_amount("context.a / 2 > 1 ? decimal(context.b) : context.rates[context.tier] / 3")
    assert amount.reads == ("context.a", "context.b", "context.rates", "context.tier")
    assert [(warning.column, warning.severity) for warning in amount.warnings] == [(11, "warning")]


FIELDS = {"a": 7, "b": -3, "c": 0, "d": 123456789}
LITERALS = st.sampled_from(["0", "1", "2.5", "0.02", "1000", "0.125", "3", "30"])
LEAVES = LITERALS | st.sampled_from(sorted(FIELDS)).map("context.{}".format)
TESTS = st.sampled_from(["context.a > 5", "context.b > 5 || false", '"?:" == "?"', "[1, 2].exists(x, x == 2)"])
HOLDS = {"context.a > 5": True, "context.b > 5 || false": False, '"?:" == "?"': False, "[1, 2].exists(x, x == 2)": True}


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(inner, inner)
    return (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map("({0[0]} {0[1]} {0[2]})".format)
        | pairs.map("min({0[0]}, {0[1]})".format)
        | pairs.map("max({0[0]}, {0[1]})".format)
        | inner.map("(-{})".format)
        | st.tuples(TESTS, inner, inner).map("({0[0]} ? {0[1]} : {0[2]})".format)
    )


def oracle(text: str) -> Fraction | None:
    """The value by Python's own parser and fractions, None for a division by zero."""
    for test, holds in HOLDS.items():
        text = text.replace(f"({test} ?", f"({'T' if holds else 'F'} ?")
    text = re.sub(r"context\.(\w)", r"\1", text)
    text = re.sub(r"(?<![\w.])(\d+\.?\d*)", r"N('\1')", text)
    while (found := re.search(r"\((T|F) \? ", text)) is not None:
        text = text[: found.start()] + f"choose('{found[1]}', lambda: " + text[found.end() :]
    text = text.replace(" : ", ", lambda: ")
    names = {name: Fraction(value) for name, value in FIELDS.items()}
    choose = {"choose": lambda test, yes, no: yes() if test == "T" else no()}
    try:
        return eval(text, {"N": Fraction, "min": min, "max": max, **choose, **names})  # noqa: S307 - our own text
    except ZeroDivisionError:
        return None


@settings(max_examples=300, deadline=None)
@given(st.recursive(LEAVES, grown, max_leaves=8))
def test_amounts_agree_with_fractions(text: str) -> None:
    expected = oracle(text)
    try:
        amount = compile_amount(text)
    except ExpressionError as error:
        at_save = [problem.message for problem in error.problems]
        assume(at_save != ["division by zero has no value"])  # of constants
        raise
    outcome = amount.evaluate(make_activation({"context": FIELDS}))
    if expected is None:
        assert outcome == Failed("division by zero")
        return
    assert isinstance(outcome, Decimal)
    if amount.digits_bound is not None:
        assert Fraction(outcome) == expected
        assert round_amount(outcome, amount.digits_bound, None) == outcome
    assert abs(Fraction(outcome) - expected) < Fraction(1, 10**80)


@settings(deadline=None)
@given(st.integers(0, 10**40), st.integers(1, 10**20), SCALES, st.sampled_from(sorted(MODES)))
@example(1, 3, 18, "half_up")
@example(10**118 - 1, 10**59, 0, "down")  # 118 nines: cutting to 100 digits must not round up to a whole
def test_a_quotient_is_rounded_as_if_it_had_all_its_digits(dividend: int, divisor: int, scale: int, mode) -> None:
    event = make_activation({"context": {"a": dividend, "b": divisor}})
    outcome = compile_amount("context.a / context.b").evaluate(event)
    assert isinstance(outcome, Decimal)
    whole, rest = divmod(dividend * 10**scale, divisor)
    above = {"down": False, "up": rest > 0, "half_up": 2 * rest >= divisor}
    above["half_even"] = 2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1)
    assert int(round_amount(outcome, scale, mode).scaleb(scale, CONTEXT)) == whole + above[mode]


NUMBERS = st.integers() | st.floats() | st.decimals() | st.booleans() | st.none() | st.text() | st.just([])


@settings(deadline=None)
@given(NUMBERS, NUMBERS)
def test_no_value_of_an_event_makes_an_amount_raise(first: object, second: object) -> None:
    event = make_activation({"context": {"a": first, "b": second}})
    for text in ("context.a * context.b + 0.5", "context.a / context.b", "decimal(context.a) - scaled(context.b, 18)"):
        assert isinstance(compile_amount(text).evaluate(event), Decimal | Missing | Failed)
