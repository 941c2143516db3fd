"""Conditions that no event fulfils are warned about, and only those."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect.authoring import review
from connect.engine.expression import compile_condition, make_activation

RULE = """\
rules:
  - key: r
    event_type: bought
    limits: [ {{ per: recipient, every: day, uses: 1 }} ]
    condition: {}
    actions: [ {{ target: points, command: credit, recipient: actor, amount: 5, unit: points }} ]
units: {{ points: {{ scale: 0 }} }}
"""


@pytest.mark.parametrize(
    ("condition", "at", "said"),
    [
        (["context.a > 5", "context.a < 3"], "/1", "`context.a < 3` never holds together with `context.a > 5`"),
        (["context.a == 1 && context.a == 2"], "/0", "`context.a == 2` never holds together with `context.a == 1`"),
        (["context.a >= 5 && 5 > context.a"], "/0", "`context.a < 5` never holds together with `context.a >= 5`"),
        (['context.s == "a"', 'context.s == "b"'], "/1", '`context.s == "b"` never holds together with'),
        (['context.s == "a"', "context.s == 5"], "/1", "never holds together with"),
        (["context.a > 5", "context.b > 1", "context.a == 5.0"], "/2", "`context.a == 5.0` never holds together"),
        (["context.f == true", "context.f == false"], "/1", "`context.f == false` never holds together"),
        (["context.a == null", "context.a > 0"], "/1", "`context.a > 0` never holds together"),
        (["context['a b'].c > 5", "context['a b'].c < 3"], "/1", 'context["a b"].c < 3'),
        (["counters.n == 3", "counters.n > 3"], "/1", "`counters.n > 3` never holds together"),
    ],
)
def test_two_comparisons_of_one_field_that_exclude_each_other_are_a_warning(
    condition: list[str], at: str, said: str
) -> None:
    found = [one for one in review(RULE.format(json.dumps(condition))) if "never holds" in one.message]
    assert [(one.severity, one.pointer) for one in found] == [("warning", f"#/rules/0/condition{at}")]
    assert said in found[0].message
    assert (found[0].caret or "").endswith("^")


@pytest.mark.parametrize(
    "condition",
    [
        ["context.a > 5", "context.a < 6"], ["context.a >= 5", "context.a <= 5"], ["context.a > 5", "context.a > 9"],
        ["context.a > 5 || context.a < 3"], ["context.a > 5", "!(context.a > 7)"], ["context.a > 5", "context.b < 3"],
        ["context.a[0] == 1", "context.a[1] == 2"], ["context.a == 5", "context.a >= 5"],
        ["context.a == 5", "context.a == 5.0"],
        ["context.l.exists(i, i == 1) && context.l.exists(i, i == 2)"], ["context.a == 1 ? context.a == 2 : true"],
        ["context.a == 1", "context.a != 2"], ['context.s > "a"', 'context.s < "b"'], ["context.a > context.b"],
    ],
)  # fmt: skip
def test_what_some_event_fulfils_is_not_warned_about(condition: list[str]) -> None:
    assert not [one for one in review(RULE.format(json.dumps(condition))) if "never holds" in one.message]


VALUES = st.sampled_from([-1, 0, 1, 1.5, 2, 2.0, True, False, None, "a", "b", "é", "z"])
SIGNS = st.sampled_from(["==", "<", "<=", ">", ">="])
TRIED: list[Any] = [-2, -1, -0.5, 0, 0.5, 1, 1.2, 1.5, 1.7, 2, 3, True, False, None, "", "A", "a", "aa", "b", "c", "é",
                    "éé", "z", "zz"]  # fmt: skip


@given(st.lists(st.tuples(SIGNS, VALUES), min_size=1, max_size=3))
def test_a_warning_is_given_exactly_where_no_value_fulfils_the_condition(compared: list[tuple[str, Any]]) -> None:
    parts = [f"context.a {sign} {json.dumps(value, ensure_ascii=False)}" for sign, value in compared]
    parts = [part for part in parts if not (part.endswith(("null", "true", "false")) and " == " not in part)]
    if not parts:
        return
    condition = compile_condition(" && ".join(parts))
    fulfilled = any(condition.evaluate(make_activation({"context": {"a": value}})) is True for value in TRIED)
    warned = [one for one in review(RULE.format(json.dumps(parts))) if "never holds" in one.message]
    assert bool(warned) is not fulfilled
