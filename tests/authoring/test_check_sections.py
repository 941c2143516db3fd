"""Schemas and inline tests may not say these things, each with its place."""

import pytest

from tests.authoring.faults import (
    ARMS,
    GIVEN,
    POINTS,
    SCHEMA,
    Case,
    amount,
    check_found,
    each,
    one,
    reversed_,
    story,
)

SCHEMAS: list[Case] = [
    (
        SCHEMA + reversed_("{ event_type: x, same: context.§oder_id }"),
        "#/rules/0/reversal/same",
        "error",
        "there is no context.oder_id",
    ),
    (
        SCHEMA + one("condition: context.§amont > 5"),
        "#/rules/0/condition",
        "error",
        "there is no context.amont did you mean context.amount?",
    ),
    (SCHEMA + one("condition: has(context.§amont)"), "#/rules/0/condition", "error", "no context.amont"),
    (SCHEMA + one('condition: context[§"amont"] > 5'), "#/rules/0/condition", "error", "no context.amont"),
    (
        SCHEMA + one(actions=amount("context.amount * context.§ammount")),
        "#/rules/0/actions/0/amount",
        "error",
        "ammount",
    ),
    (
        SCHEMA + one(actions=amount('context.tier == "gold" ? context.§tier : 5')),
        "#/rules/0/actions/0/amount",
        "error",
        "context.tier is text, not a number",
    ),
    (
        SCHEMA + one("condition: context.items.exists(item, item.price > 5 && item.§prise < 9)"),
        "#/rules/0/condition",
        "error",
        "there is no item.prise did you mean item.price?",
    ),
    (
        SCHEMA + one(actions=each("each: { in: context.items, as: item, recipient: item.§sellr, amount: item.price }")),
        "#/rules/0/actions/0/each/recipient",
        "error",
        "item.sellr",
    ),
    (
        SCHEMA + one(actions=f"[ {POINTS[:-2]}, params: {{ order: =context.§order }} }} ]"),
        "#/rules/0/actions/0/params/order",
        "error",
        "order_id",
    ),
    (
        SCHEMA + reversed_("{ event_type: x, same: { this: context.o, original: context.§oder_id } }"),
        "#/rules/0/reversal/same/original",
        "error",
        "order_id",
    ),
    (
        SCHEMA + reversed_("{ event_type: x, same: context.order_id, fraction: context.b / original.context.§amont }"),
        "#/rules/0/reversal/fraction",
        "error",
        "original.context.amount",
    ),
    (
        SCHEMA
        + "counters: { c: { event_type: purchase.completed, of: actor, kind: sum, value: context.§amont } }\n"
        + one("condition: counters.c > 5"),
        "#/counters/c/value",
        "error",
        "amont",
    ),
    (
        "schemas: { purchase.completed: { $ref: §x } }\n" + one(),
        "#/schemas/purchase.completed/$ref",
        "error",
        "write the fields out",
    ),
]

STORIES: list[Case] = [
    (
        story(f"{{ name: a, {GIVEN}, expect: {{ e1: [ {{ rule: §q, amount: 5 }} ] }} }}"),
        "#/tests/0/expect/e1/0/rule",
        "error",
        "no rule has the key q",
    ),
    (
        story(f"{{ name: a, {GIVEN}, expect: {{ §e2: [] }} }}"),
        "#/tests/0/expect/e2",
        "error",
        "no given event has the external_id e2",
    ),
    (
        story(f"{{ name: a, {GIVEN}, expect: {{ e1: [ {{ rule: r, amount: §-5- }} ] }} }}"),
        "#/tests/0/expect/e1/0/amount",
        "error",
        "'-5-' is no amount",
    ),
    (
        story(f"{{ name: a, {GIVEN}, expect: {{ e1: [ {{ rule: r, amount: 5, unit: §nft }} ] }} }}"),
        "#/tests/0/expect/e1/0/unit",
        "error",
        "it has points",
    ),
    (
        story(f"{{ name: a, {GIVEN}, expect: {{}} }}\n  - {{ name: §a, {GIVEN}, expect: {{}} }}"),
        "#/tests/1/name",
        "error",
        "test 1 has this name already",
    ),
    (
        story(f"{{ name: a, {GIVEN}, expect: {{}}, arms: {{ r: §a }} }}"),
        "#/tests/0/arms/r",
        "error",
        "the rule r has no variants",
    ),
    (
        story(f"{{ name: a, {GIVEN}, expect: {{}}, arms: {{ r: §c }} }}", f"variants: {ARMS}"),
        "#/tests/0/arms/r",
        "error",
        "the rule r has no arm c it has a, b",
    ),
    (
        story(f"{{ name: a, {GIVEN}, expect: {{}}, arms: {{ r: §holdout }} }}", f"variants: {ARMS}"),
        "#/tests/0/arms/r",
        "error",
        "the rule r has no arm holdout",
    ),
]

ALL = [*SCHEMAS, *STORIES]


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case[1]} {case[3]}")
def test_a_field_or_a_name_that_there_is_not_is_told_where_it_stands(case: Case):
    check_found(*case)
