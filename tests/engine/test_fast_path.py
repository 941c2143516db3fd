"""Conditions that are decided without the library come out as the library decides them, on any event."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect.engine.expression import Condition, compile_condition, make_activation

TEXTS = [
    *(f"context.amount {order} {n}" for order in ("==", "!=", "<", "<=", ">", ">=") for n in (0, 1000, -3)),
    'context.currency == "EUR"', 'context.currency != "EUR"', 'context.currency in ["EUR", "USD"]',
    "has(context.tags)", "!has(context.tags)", "has(context.tags) && size(context.tags) >= 2",
    "size(context.deep) == 1",
    'has(context.tags) || context.currency == "EUR"', 'context.amount > 5 && context.currency == "USD"',
    'context.currency == "USD" && context.amount > 5', "context.deep.amount > 1 || context.amount > 1000",
    "has(context.deep.amount)", "counters.purchases == 3", "counters.purchases >= 3 && has(parties.referrer)",
    'context["amount"] >= 10', 'actor_user_id != "u1"', "context.amount in [1, 2]", "context.amount >= 10.5",
    'has(context.tags) && "a" in context.tags', "context.missing == null",
]  # fmt: skip
NUMBERS = st.one_of(st.sampled_from([0, 1, 2, 10, 1000, -3, 2**63 - 1, -(2**63)]), st.integers(-2000, 2000))
ODD = st.one_of(NUMBERS, st.none(), st.booleans(), st.floats(-2000, 2000), st.sampled_from(["EUR", "USD", "", "u1"]))
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "amount": ODD,
        "currency": ODD,
        "tags": st.one_of(ODD, st.lists(st.sampled_from(["a", "b"]), max_size=3), st.dictionaries(st.just("a"), ODD)),
        "deep": st.one_of(ODD, st.fixed_dictionaries({}, optional={"amount": ODD})),
    },
)
PAIRS = [(compile_condition(text), compile_condition(text)) for text in TEXTS]
for _, slow in PAIRS:
    slow._quick = None


@given(CONTEXTS, st.one_of(st.none(), st.just("u1")), st.fixed_dictionaries({}, optional={"purchases": NUMBERS}))
def test_whatever_an_event_holds_the_answer_is_the_librarys(
    context: dict[str, Any], actor: str | None, counters: dict[str, Any]
):
    values = {"context": context, "actor_user_id": actor, "parties": {"referrer": "r"} if actor else {}}
    activation = make_activation(values).bind({"counters": counters})
    for quick, slow in PAIRS:
        assert quick.evaluate(activation) == slow.evaluate(activation), quick.text


@pytest.mark.parametrize(
    ("text", "is_quick"),
    [
        ("context.amount_minor >= 1000", True),
        ('context.currency in ["EUR", "USD"]', True),
        ("has(context.departments) && size(context.departments) >= 8", True),
        ("parties.referrer != actor_user_id", False),
        ("context.amount_minor * 2 >= 1000", False),
        ('context.items.exists(item, item.category == "books")', False),
    ],
)
def test_the_commonest_conditions_need_no_library(text: str, is_quick: bool):
    condition: Condition = compile_condition(text)
    assert (condition._quick is not None) is is_quick
