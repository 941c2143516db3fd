"""Expressions against the real CEL library: what they mean, what they refuse and where they point."""

import datetime
import subprocess
import sys
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from connect.engine.expression import (
    ELEMENTS_MAX,
    TEXT_MAX,
    Activation,
    ExpressionError,
    Failed,
    Missing,
    ast,
    compile_amount,
    compile_condition,
    compile_value,
    environment,
    make_activation,
    paths,
    tokens,
)
from connect.engine.expression.problems import Source

CONTEXT = {
    "amount_minor": 1999,
    "rate": 1.25,
    "text": "12.50",
    "wei": "1500000000000000001",
    "nothing": None,
    "yes": True,
    "big": 2**63 - 1,
    "items": [{"price": 5, "sku": None}, {"price": 7, "sku": {"size": 2}}],
    "rates": {"gold": 3, "fine print": 4},
    "tier": "gold",
}
EVENT = {
    "context": CONTEXT,
    "actor_user_id": "u1",
    "parties": {"referrer": "r1"},
    "event_type": "purchase.completed",
    "source": "shop",
    "external_id": "e1",
    "occurred_at": datetime.datetime(2026, 1, 1, 23, 30, tzinfo=datetime.UTC),
    "counters": {"purchases": 10, "spent": Decimal("12.5")},
    "variant": {"rate": 0.05},
    "original": {"context": {"amount_minor": 3000}},
}


@pytest.fixture
def event() -> Activation:
    return make_activation(EVENT)


def problem_of(compile, text: str):
    with pytest.raises(ExpressionError) as raised:
        compile(text)
    return raised.value.problems[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("context.amount_minor >= 1000", True),
        ("context.amount_minor == 1999.0 && context.amount_minor < 1999.5", True),
        ('context["rates"].gold == 3', True),
        ("counters.purchases == 10", True),
        ("counters.spent == 12.5", True),
        ("has(parties.referrer) && parties.referrer != actor_user_id", True),
        ("has(context.absent)", False),
        ('!has(context.tags) || !("employee" in context.tags)', True),
        ("context.items.exists(item, item.price > 6)", True),
        ("primary_subject_user_id == null", True),
        ('occurred_at < timestamp("2026-01-02T00:00:00Z")', True),
        ('occurred_at.getHours("Europe/Berlin") == 0', True),
        ('event_type == "purchase.completed" && source == "shop" && external_id.startsWith("e")', True),
        ("context.yes", True),
        ("context.absent == 1 || true", True),  # what || and && absorb is CEL's own business
        ("false && context.absent == 1", False),
        ("context.absent == 1", Missing("context.absent")),
        ("context.absent == 1 && true", Missing("context.absent")),
        ('context["fine print"] == 1', Missing('context["fine print"]')),
        ("parties.seller == actor_user_id", Missing("parties.seller")),
        ("context.nothing.deeper == 1", Missing("context.nothing.deeper")),
        ("context.nothing[0] == 1", Missing("context.nothing[0]")),
        ("has(context.nothing.deeper)", Missing("context.nothing.deeper")),
        ("context.items[2].price == 1", Missing("context.items[2]")),
        ("context.items[-1].price == 1", Missing("context.items[-1]")),
        ("context.items.all(item, item.weight > 1)", Missing("context.items.weight")),
        ("context.items.exists(item, item.sku.size == 9)", Missing("context.items.sku.size")),
        ("context.text.deeper == 1", Failed("context.text is text, which has no fields")),
        ("context.amount_minor / (context.amount_minor - 1999) == 1", Failed("division by zero")),
        ("context.big + 1 > 0", Failed("integer overflow")),
        ('context.amount_minor > "x"', Failed("> cannot be applied to a whole number and text")),
        ("context.nothing > 1", Failed("> cannot be applied to null and a whole number")),
        ("context.text", Failed("the condition gave string, not true or false")),
        ("context.nothing", Failed("the condition gave null, not true or false")),
        ("context.text.matches(context.text + '(')", Failed("invalid regular expression: missing ): 12.50(")),
    ],
)
def test_a_condition_is_true_false_missing_or_failed(text: str, expected: object, event: Activation) -> None:
    assert compile_condition(text).evaluate(event) == expected


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("contxt.amount == 1", 1, 1, "unknown name contxt", "did you mean context?"),
        ("context.a == 1 &&\n  contxt.b == 2", 2, 3, "unknown name contxt", "did you mean context?"),
        ('"é𝄞" == "é𝄞" &&\n"é𝄞" == foo', 2, 9, "unknown name foo", "fields of the event are read as context.foo"),
        ("EUR == context.currency", 1, 1, "unknown name EUR", "texts stand in quotes"),
        ("item.price > 1", 1, 1, "unknown name item", None),
        ("original.context.x == 1", 1, 1, "unknown name original", "only in a reversal's fraction"),
        ("context.items.exits(i, i.x == 1)", 1, 15, "unknown function exits", "did you mean exists?"),
        ("context.items.exists(i.x == 1)", 1, 15, "exists is written list.exists(item, test)", None),
        ("now() > occurred_at", 1, 1, "unknown function now", "a rule knows no clock"),
        ("min(1, 2) == 1", 1, 1, "min works in amounts only", None),
        ("context.amount_minor", None, None, None, None),
        ("1 + 1", 1, 1, "a condition must be true or false, this is int", None),
        ('  "a"', 1, 3, "a condition must be true or false, this is string", None),
        ('1 == "a"', 1, 3, "found no matching overload", "can never be equal"),
        ("context.a = 1", 1, 11, "unexpected =", "compare with =="),
        ("context.a == 1 and true", 1, 16, "unexpected and", "write && for and"),
        ("context.a ==", 1, 13, "the expression ends too early", None),
        ("context.text.matches('(a')", 1, 22, "invalid regular expression: missing ): (a", None),
        ('timestamp("yesterday") < occurred_at', 1, 11, "String to Timestamp conversion failed", None),
        ('occurred_at.getHours("Europe/Berln") == 1', 1, 22, "Invalid timezone", None),
        ("google.protobuf.Int32Value{value: 1} == 1", 1, 1, "rules have none", None),
        ("", 1, 1, "the expression is empty", None),
        ("'\ud800' == 'a'", 1, 1, "no text", None),
        (f"'{'a' * TEXT_MAX}' == ''", 1, 1, f"at most {TEXT_MAX:,}", None),
        ("(" * 2000 + "true" + ")" * 2000, 1, 1, "nested too deeply", "split it"),
        ("1" + "+1" * 2000 + " == 1", 1, 1, "nested too deeply", "split it"),
        ("[" * 33 + "]" * 33 + " == []", 1, 1, "nested too deeply", "split it"),
    ],
)
def test_a_wrong_condition_is_refused_at_its_place(text, line, column, message, hint) -> None:
    if message is None:  # what may be true or false when it runs is let through
        assert compile_condition(text).reads == ("context.amount_minor",)
        return
    problem = problem_of(compile_condition, text)
    assert (problem.line, problem.column, problem.severity) == (line, column, "error")
    assert message in problem.message
    assert hint is None or hint in (problem.hint or "")


def test_every_unknown_name_is_told_at_once() -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_condition("contxt.a == 1 && partis.b == 'x' && foo(1)")
    assert [problem.column for problem in raised.value.problems] == [1, 18, 37]


def test_a_caret_points_at_the_column() -> None:
    text = "context.a == 1 &&\n  contxt.b == 2"
    assert problem_of(compile_condition, text).caret(text) == " |   contxt.b == 2\n | ..^"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("context.a == 1 && context.a < context.b.c", ("context.a", "context.b.c")),
        ("has(parties.referrer) && counters.purchases == 1", ("parties.referrer", "counters.purchases")),
        ("context.items.exists(i, i.price > context.limit)", ("context.items", "context.limit")),
        ("context.items.exists(context, context.price > 1)", ("context.items",)),
        ('context.items[0].price == 1 && context["a b"] == 2', ("context.items[0].price", 'context["a b"]')),
        ("context.rates[context.tier] == 1", ("context.rates", "context.tier")),
        ("size(context) == 1 && type(actor_user_id) == string", ("context", "actor_user_id")),
    ],
)
def test_the_fields_a_condition_reads_are_known(text: str, expected: tuple[str, ...]) -> None:
    assert compile_condition(text).reads == expected


def test_the_trace_gets_the_values_read_and_leaves_out_the_absent(event: Activation) -> None:
    reads = ("context.amount_minor", "context.items[1].sku.size", 'context.rates["fine print"]', "context.absent")
    expected = {"context.amount_minor": 1999, "context.items[1].sku.size": 2, 'context.rates["fine print"]': 4}
    assert event.values_read(reads) == expected


@given(st.lists(st.integers(-3, 3) | st.text(max_size=5), max_size=4))
def test_a_path_survives_writing_and_reading(steps: list[int | str]) -> None:
    assert paths.parse(paths.render(("context", *steps))) == ("context", *steps)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("context.a / 2 == 1", "divides whole numbers"),
        ("5 / 2 == 2", "divides whole numbers"),
        ("context.amount_minor * 0.02 > 1.0", "does not mix whole and decimal"),
        ("context.a + 2 == 1 && double(context.b) * 0.02 > 1.0 && context.c / 2.5 == context.d", "does not mix"),
        ("context.a * 2 == 3", None),
    ],
)
def test_arithmetic_that_surprises_is_warned_of(text: str, said: str | None) -> None:
    warnings = compile_condition(text).warnings
    assert len(warnings) == (said is not None)
    assert all(str(said) in warning.message for warning in warnings)
    assert all(warning.severity == "warning" for warning in warnings)


def test_loops_inside_loops_are_refused_by_their_cost() -> None:
    two = "context.items.all(a, context.items.all(b, a.price == b.price || a.sku != b.sku))"
    assert 4_096 < compile_condition(two).cost < 200_000
    three = "context.items.all(a, context.items.all(b, context.items.all(c, a == b)))"
    assert "too costly: about" in problem_of(compile_condition, three).message
    doubling = "[context.s].all(a, [a+a].all(b, [b+b].all(c, [c+c].all(d, [d+d].all(e, [e+e].all(f, true))))))"
    cheap = doubling.replace("a+a", "a").replace("b+b", "b").replace("c+c", "c").replace("d+d", "d").replace("e+e", "e")
    assert compile_condition(doubling).cost > 10 * compile_condition(cheap).cost


def test_an_event_with_long_lists_cannot_hold_up_a_worker() -> None:
    long = make_activation({"context": {"n": list(range(3_000))}})
    endless = compile_condition("context.n.all(a, context.n.all(b, a + b >= 0))").evaluate(long)
    assert endless == Failed("more than 10,000 steps through lists")
    copied = compile_condition("context.n.map(a, a + 1) == []").evaluate(long)
    assert copied == Failed(f"map() and filter() take {ELEMENTS_MAX:,} elements, the event has 3,000")
    assert compile_condition("context.n.all(a, a >= 0)").evaluate(long) is True


NULLS = """
import sys
from connect.engine.expression import *
nulls = make_activation({"context": {"n": None, "list": [None, {"n": None}]}})
expressions = [compile_condition("context.n"), compile_condition("context.n == null"), compile_condition("context.n.a")]
expressions += [compile_value("[context.n, context.list]"), compile_value("context.list"), compile_value("null")]
before = sys.getrefcount(None)
for _ in range(5_000):
    for expression in expressions:
        expression.evaluate(nulls)
sys.exit(abs(sys.getrefcount(None) - before) > 1_000)
"""


def test_reading_nulls_does_not_take_the_process_down() -> None:
    # cel-expr-python 0.1.3 frees None too often where a null is read by value(); Python 3.11 aborts of it.
    assert subprocess.run([sys.executable, "-c", NULLS], check=False, timeout=60).returncode == 0


def test_values_cel_cannot_take_fail_and_do_not_raise() -> None:
    condition = compile_condition("context.x == 1")
    for value in (2**64, "\ud800", object(), b"x", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), {1: 2}):
        outcome = condition.evaluate(make_activation({"context": {"x": value}}))
        assert outcome is False or isinstance(outcome, Failed)
    assert condition.evaluate(make_activation({"context": {"x": Decimal("1.0")}})) is True
    with pytest.raises(ValueError, match="has no zone"):
        make_activation({"occurred_at": datetime.datetime(2026, 1, 1)})  # noqa: DTZ001 - that is the point


def test_a_moment_is_known_to_an_environment_that_has_compiled_nothing_yet() -> None:
    condition = compile_condition("occurred_at.getFullYear() == 2026", frozenset({"item"}))
    environment.environment.cache_clear()
    assert condition.evaluate(make_activation(EVENT)) is True


def test_absent_ids_are_null_and_absent_objects_empty() -> None:
    empty = make_activation({})
    for text in ("actor_user_id == null", "!has(parties.referrer)", "!has(counters.x)", "context == {}"):
        assert compile_condition(text).evaluate(empty) is True
    assert compile_condition("variant.rate > 1").evaluate(empty) == Missing("variant.rate")


def test_each_binds_an_item_and_its_rank(event: Activation) -> None:
    extra = frozenset({"item", "rank"})
    condition = compile_condition("item.price > 6 && rank == 1 && context.amount_minor > 1", extra)
    amount = compile_amount("item.price * 0.01 + rank", extra)
    rounds = [event.bind({"item": item, "rank": rank}) for rank, item in enumerate(CONTEXT["items"])]
    assert [condition.evaluate(bound) for bound in rounds] == [False, True]
    assert [amount.evaluate(bound) for bound in rounds] == [Decimal("0.05"), Decimal("1.07")]
    assert condition.reads == ("item.price", "rank", "context.amount_minor")
    assert "item" not in event.values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("context.items", CONTEXT["items"]),
        ("context.items.map(i, i.price)", [5, 7]),
        ("context.items.filter(i, i.price > 5)", [{"price": 7, "sku": {"size": 2}}]),
        ('{"at": occurred_at, "n": [null, 1, 2.5, true, "x"], "for": duration("90m")}', None),
        ("occurred_at", "2026-01-01T23:30:00Z"),
        ("occurred_at + duration('0.5s')", "2026-01-01T23:30:00.500000Z"),
        ("counters.spent", 12.5),
        ("{1: true, false: 2}", {"1": True, "false": 2}),
        ("primary_subject_user_id", None),
        ("has(context.absent)", False),
        ("original.context.amount_minor", 3000),
        ("context.absent", Missing("context.absent")),
        ("context.absent + 1", Missing("context.absent")),
        ("context.text.deeper", Failed("context.text is text, which has no deeper")),
        ("1.0 / 0.0", Failed("the value holds inf, which JSON cannot")),
    ],
)
def test_a_value_is_what_json_holds(text: str, expected: object, event: Activation) -> None:
    if text.startswith('{"at"'):
        expected = {"at": "2026-01-01T23:30:00Z", "n": [None, 1, 2.5, True, "x"], "for": "5400s"}
    outcome = compile_value(text).evaluate(event)
    assert (outcome, type(outcome)) == (expected, type(expected))


def test_bytes_are_no_value() -> None:
    assert "one JSON can hold" in problem_of(compile_value, "b'x'").message


WORDS = st.sampled_from(
    "context|context.a|context.n|context.items|.b|[0]|['x']|==|!=|<|&&|!|(|)|+|-|*|/|%|?|:|,|1|0|2.5|'x'|null|true| in "
    "|has(|size(|.exists(i, |.map(i, |i|i.a|[|]|{|}|matches(|decimal(|min(|//|r'|b\"|\\|é|variant.rate|\n".split("|")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abn"), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=12).map("".join) | st.text(max_size=30), st.dictionaries(st.sampled_from("an"), JSON))
def test_any_text_is_refused_with_places_or_gives_an_outcome(text: str, context: dict[str, object]) -> None:
    event = make_activation({"context": context})
    for compile in (compile_condition, compile_amount, compile_value):
        try:
            outcome = compile(text).evaluate(event)
        except ExpressionError as error:
            lines = text.split("\n")
            for problem in error.problems:
                assert 1 <= problem.line <= len(lines)
                assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
                assert problem.caret(text)
        else:
            expected = {compile_condition: bool, compile_amount: Decimal}.get(compile, object)
            assert isinstance(outcome, expected | Missing | Failed)


ATOMS = st.sampled_from(
    "context.a|context.list[1]|has(context.a)|context.a.exists(x, x ? true : false)|(true ? 1 : 0)|1|-1|2.5|null"
    '|\'?:,(\'|"\\"?"|r\'\\d?:\'|""""?:"""|[1, 2]|{\'a\': 1}|size(\'?\', 1)|// no? yes: no\n 1'.split("|")
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(ATOMS, st.sampled_from("== != < <= + - / && || ? :".split())), min_size=1, max_size=5), ATOMS)
def test_the_test_of_a_branch_is_cut_from_the_text_as_the_grammar_reads_it(pieces, last: str) -> None:
    text = " ".join(f"{atom} {operator}" for atom, operator in pieces) + f" {last} ? 'a' : 'b:?'"
    try:
        tree = environment.parse(Source(text), frozenset())
    except ExpressionError:
        assume(False)
    for node in walk(tree):
        if isinstance(node, ast.Call) and node.function == "_?_:_":
            cut = tokens.test_before(text, node.at)
            assert environment.parse(Source(cut), frozenset()) == node.args[0]


def walk(node: ast.Node):
    yield node
    for child in ast.children(node):
        yield from walk(child)


def test_the_machines_zones_are_those_of_python() -> None:
    # cel-cpp reads the system's zone files, not the tzdata package: an image without them knows no zone.
    moment = datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.UTC)
    event = make_activation({"occurred_at": moment})
    for zone in ("Europe/Berlin", "America/New_York", "Asia/Kolkata"):
        hours = moment.astimezone(ZoneInfo(zone)).hour
        assert compile_value(f'occurred_at.getHours("{zone}")').evaluate(event) == hours
