"""Rulesets as text: what YAML would misread, what is refused and where, and the way back to text."""

import msgspec
import pytest

from connect.authoring import convert_rule, read_and_check, read_ruleset
from connect.authoring.document import DEPTH_MAX, TEXT_BYTES_MAX, read_document
from connect.errors import InvalidRuleset, Located

DOCUMENT = """\
version: 1
timezone: Europe/Berlin
units:
  points: { scale: 0, worth: 0.01 EUR }
rules:
  - key: cashback-2
    name: 2 % back on purchases from 10 EUR
    event_type: purchase.completed           # exact, or a prefix: purchase.*
    enabled: true
    starts_at: 2026-09-01T00:00:00+02:00     # half-open window, judged by occurred_at
    ends_at: null
    priority: 100
    condition:
      - context.currency == "EUR"
      - context.amount_minor >= 1000
      - '!has(context.tags) || !("employee" in context.tags)'
    actions:
      - target: points
        command: credit
        recipient: actor
        amount: context.amount_minor * 0.02
        round: down
        unit: points
        hold: 14d
        params: { reason: cashback, order: =context.order_id }
    limits: [ { per: recipient, every: month, amount: 50000 } ]
"""
ACTIONS = "[ { target: points, command: credit, recipient: actor, amount: 1, unit: points } ]"
RULE = f"{{ key: r, event_type: e, actions: {ACTIONS} }}"


def refused(text: str | bytes) -> tuple[Located, ...]:
    with pytest.raises(InvalidRuleset) as caught:
        read_and_check(text)
    assert caught.value.errors
    return caught.value.errors


def places(text: str | bytes) -> list[tuple[str, int | None, int | None]]:
    return [(error.pointer, error.line, error.column) for error in refused(text)]


def test_the_rule_of_the_documentation_reads_without_a_complaint():
    ruleset, problems = read_and_check(DOCUMENT)
    assert problems == []
    (rule,) = ruleset.rules
    assert (rule.key, rule.priority, rule.actions[0].hold, rule.lines[1]) == (
        "cashback-2",
        100,
        "14d",
        "context.amount_minor >= 1000",
    )
    assert rule.starts_at is not None
    assert rule.starts_at.isoformat() == "2026-09-01T00:00:00+02:00"


def test_json_is_read_as_the_same_ruleset():
    ruleset = read_ruleset(DOCUMENT)
    compact = msgspec.json.encode(ruleset)
    assert read_ruleset(compact) == ruleset
    assert read_ruleset(msgspec.json.format(compact, indent=2).replace(b"  ", b"\t")) == ruleset
    assert (
        read_ruleset('{"rules": [], "units": {"p": {"worth": "1 EUR"}},\n\t"timezone":"A\\ud83d\\ude00\\/"}').timezone
        == "A\U0001f600/"
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("+5", 5),
        ("9223372036854775807", 2**63 - 1),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("n", "n"),
        ("010", "010"),
        ("0o10", "0o10"),
        ("0x1F", "0x1F"),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("190:20:30", "190:20:30"),
        ("0.02", "0.02"),
        ("1.0", "1.0"),
        ("1e5", "1e5"),
        (".inf", ".inf"),
        (".NaN", ".NaN"),
        ("2026-09-01", "2026-09-01"),
        ("2026-09-01T00:00:00Z", "2026-09-01T00:00:00Z"),
        ("=", "="),
        ("=context.a", "=context.a"),
        ("'5'", "5"),
        ('"true"', "true"),
        ('"a\\nb"', "a\nb"),
    ],
)
def test_yaml_means_what_it_says(written: str, expected: object):
    value = read_document(f"a: {written}\n").value
    assert value == {"a": expected}
    assert isinstance(value, dict)
    assert type(value["a"]) is type(expected)


@pytest.mark.parametrize("key", ["on", "NO", "true", "010", "1_000", "12:30", "1.5", "<<", "="])
def test_keys_are_texts(key: str):
    assert read_document(f"{key}: 1").value == {key: 1}


@pytest.mark.parametrize(
    ("text", "says", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "stands twice, first in line 1", ("#/a", 3, 1)),
        ('{"a": {"b": 1,\n "b": 1}}', "stands twice", ("#/a/b", 2, 2)),
        ("a: &x [1]\n", "anchor", ("#/a", 1, 4)),
        ("a: [1, *x]\n", "alias", ("#/a/1", 1, 8)),
        ("a: !!str 5\n", "tag", ("#/a", 1, 4)),
        ("a: !!python/object/apply:os.system [x]\n", "tag", ("#/a", 1, 4)),
        ("a: 9223372036854775808\n", 'quote it, "9223372036854775808"', ("#/a", 1, 4)),
        ('a: "x\\0"\n', "cannot be stored", ("#/a", 1, 4)),
        ('"a\\0": 1\n', "cannot be stored", ("#/a%00", 1, 1)),
        ("a: 1\n---\nb: 1\n", "one document", ("#", 2, 1)),
        ("", "empty", ("#", 1, 1)),
        ("# nothing\n", "empty", ("#", 1, 1)),
        ("? [a]\n: b\n", "key must be a text", ("#", 1, 3)),
        ("a: [1\nb: 2\n", "no valid YAML", ("#", 2, 2)),
        ("a: \x07", "no valid YAML", ("#", 1, 1)),
        ("rules:\n\t- key: a\n", "a tab stands here", ("#", 2, 1)),
        ("rules:\n  - key: a\n  \tevent_type: b\n", "write spaces in its place", ("#", 3, 3)),
        ("rules:\n  -\tkey: a\n", "a tab stands here", ("#", 2, 4)),
        ("a: |\n\ttext\n", "a tab stands here", ("#", 2, 1)),
        (b"a: \xff\n", "not UTF-8", ("#", 1, 1)),
        ("[" * (DEPTH_MAX + 2), "nested deeper", ("#" + "/0" * (DEPTH_MAX + 1), 1, DEPTH_MAX + 2)),
        ("[" * 500_000, "nested deeper", ("#" + "/0" * (DEPTH_MAX + 1), 1, DEPTH_MAX + 2)),
        ("- " * 500_000, "nested deeper", ("#" + "/0" * (DEPTH_MAX + 1), 1, 2 * DEPTH_MAX + 3)),
        ("#" * (TEXT_BYTES_MAX + 1), "bytes", ("#", 1, 1)),
        ("just a text", "must be an object", ("#", 1, 1)),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_yaml_allows_and_rules_do_not_is_refused(text: str | bytes, says: str, expected: tuple[str, int, int]):
    first = next(error for error in refused(text) if error.pointer == expected[0])
    assert (first.pointer, first.line, first.column) == expected
    assert says in first.detail


def test_a_billion_laughs_are_refused_at_the_first():
    laughs = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert len(refused(laughs)) >= 17


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('condition: "employee" in context.tags', """'"employee" in context.tags'"""),
        ("condition: 'a' in context.tags", '''"'a' in context.tags"'''),
        ("condition: !has(context.tags)", "'!has(context.tags)'"),
        ('condition: !has(context.tags) || "a" in context.tags', """'!has(context.tags) || "a" in context.tags'"""),
        ("condition: context.a ? context.b : context.c", "'context.a ? context.b : context.c'"),
        ('condition: context.color == "a: b"', """'context.color == "a: b"'"""),
        ('condition: context.color == "red #1"', """'context.color == "red #1"'"""),
        ('condition: context.color == "red #1" # why', """'context.color == "red #1"'"""),
        ('condition:\n      - "a" in context.tags', """'"a" in context.tags'"""),
        ('condition:\n      - true\n      - !has(context.a) || "b" == "c"', """'!has(context.a) || "b" == "c"'"""),
        ("condition: [ context.a == f(context.b, 1), context.c ]", "'context.a == f(context.b, 1)'"),
        ("condition: %x", "'%x'"),
        ("condition: &a && b", "'&a && b'"),
        ("condition: `a`", "'`a`'"),
    ],
)
def test_an_expression_that_yaml_takes_apart_is_told_with_its_quoted_form(written: str, expected: str):
    text = f"rules:\n  - key: r\n    event_type: e\n    {written}\n    actions: {ACTIONS}\n"
    (error, *_) = refused(text)
    assert error.detail.rstrip(")").endswith(f"quote it: {expected}".rstrip(")"))
    assert error.line == 4 + written.count("\n")


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("min(context.a, 5)", "'min(context.a, 5)'"),
        ("context.a > 1 ? 2 : 3", "'context.a > 1 ? 2 : 3'"),
        ("context.list[0] * 2", "'context.list[0] * 2'"),
        ('context["a"] * 2', """'context["a"] * 2'"""),
        ('context.a == "x" ? 1 : max(2, 3)', """'context.a == "x" ? 1 : max(2, 3)'"""),
    ],
)
def test_an_amount_inside_braces_is_told_with_its_quoted_form(amount: str, expected: str):
    text = "rules:\n  - " + RULE.replace("amount: 1", f"amount: {amount}")
    (error,) = refused(text)
    assert error.detail.endswith(f"quote it: {expected}")
    assert (error.line, error.column) == (2, text.splitlines()[1].index(amount) + 1)
    assert read_and_check(text.replace(amount, expected))[0].rules[0].actions[0].amount == amount


@pytest.mark.parametrize(
    ("change", "says", "expected"),
    [
        (
            ("    priority: 100", "    limit: [ { per: actor } ]"),
            "did you mean `limits`?",
            ("#/rules/0/limit", 12, 5),
        ),
        (("    priority: 100", "    priorty: 100"), "did you mean `priority`?", ("#/rules/0/priorty", 12, 14)),
        (("units:", "budget: {}\nunits:"), "did you mean `budgets`?", ("#/budget", 3, 1)),
        (("hold: 14d", "hold: 14 days"), "such as 14d", ("#/rules/0/actions/0/hold", 24, 15)),
        (("enabled: true", "enabled: on"), "true or false", ("#/rules/0/enabled", 9, 14)),
        (("  - key: cashback-2\n    name", "  - name"), "`key` is required", ("#/rules/0", 6, 5)),
        (("key: cashback-2", "key: 12"), 'quote it: "12"', ("#/rules/0/key", 6, 10)),
        (("+02:00", ""), "needs an offset or Z", ("#/rules/0/starts_at", 10, 16)),
        (("T00:00:00+02:00", ""), "must be a moment", ("#/rules/0/starts_at", 10, 16)),
        (("round: down", "round: floor"), "must be one of down, ", ("#/rules/0/actions/0/round", 22, 16)),
        (("priority: 100", "priority: 1.5"), "must be a whole number", ("#/rules/0/priority", 12, 15)),
        (("priority: 100", "priority: 9999999"), "from -1000000 to 1000000", ("#/rules/0/priority", 12, 15)),
        (("version: 1", "version: 2"), "must be one of 1", ("#/version", 1, 10)),
        (("scale: 0", "scale: 19"), "from 0 to 18", ("#/units/points/scale", 4, 20)),
        (
            ("purchase.completed  ", "purchase completed  "),
            "such as purchase.completed",
            ("#/rules/0/event_type", 8, 17),
        ),
        (
            ("amount: context.amount_minor * 0.02", "amount: [1]"),
            "a text or a whole number",
            ("#/rules/0/actions/0/amount", 21, 9),
        ),
    ],
)
def test_faults_of_form_are_told_where_they_stand(change: tuple[str, str], says: str, expected: tuple[str, int, int]):
    assert change[0] in DOCUMENT
    (error,) = refused(DOCUMENT.replace(*change, 1))
    assert says in error.detail
    assert (error.pointer, error.line, error.column) == expected


def test_all_faults_are_told_at_once_in_the_order_of_the_document():
    broken = (
        DOCUMENT.replace("key: cashback-2", "key: a b")
        .replace("hold: 14d", "hold: x")
        .replace("    priority", "    prio")
    )
    assert [pointer for pointer, _, _ in places(broken)] == [
        "#/rules/0/key",
        "#/rules/0/prio",
        "#/rules/0/actions/0/hold",
    ]


def test_pointers_are_escaped_as_the_standard_says():
    ((pointer, *_),) = places("units:\n  'a/b~c d': {}\n")
    assert pointer == "#/units/a~1b~0c%20d"


def test_a_single_rule_is_refused_with_pointers_of_its_own():
    with pytest.raises(InvalidRuleset) as caught:
        convert_rule(
            {
                "key": "r",
                "event_type": "e",
                "actions": [{"target": "t", "command": "c", "unit": "u", "amount": []}],
                "x": 1,
            }
        )
    assert [error.pointer for error in caught.value.errors] == ["#/actions/0/amount", "#/x"]


def test_numbers_of_a_rule_sent_as_json_are_read_as_a_document_reads_them():
    action = {
        "target": "t",
        "command": "c",
        "unit": "u",
        "recipient": "actor",
        "amount": 0.5,
        "params": {"rate": 1.25, "n": 2},
    }
    rule = convert_rule({"key": "r", "event_type": "e", "actions": [action]})
    assert (rule.actions[0].amount, rule.actions[0].params) == ("0.5", {"rate": "1.25", "n": 2})


@pytest.mark.parametrize(
    "data",
    [None, 5, "text", [], [1], {"key": None}, {"key": "\0", "event_type": "e", "actions": []}, {"actions": 10**30}],
)
def test_any_json_sent_as_a_rule_is_refused_with_a_place(data: object):
    with pytest.raises(InvalidRuleset) as caught:
        convert_rule(data)
    assert all(error.pointer.startswith("#") for error in caught.value.errors)
