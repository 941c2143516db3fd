"""Variants, reversals and shares may not say these things, each with its place."""

import pytest

from tests.authoring.faults import (
    ARMS,
    POINTS,
    Case,
    amount,
    check_found,
    each,
    experiment,
    one,
    reversed_,
    rule,
    rules,
)

VARIANTS: list[Case] = [
    (
        one(f"variants: {ARMS}", actions=f"[ {POINTS[:-2]}, params: {{ arm: =§variant }} }} ]"),
        "#/rules/0/actions/0/params/arm",
        "error",
        "by their names",
    ),
    (
        experiment("{ by: actor, seed: s, arms: §{ a: { weight: 50 }, b: { weight: 40 } } }")
        .replace("§", "")
        .replace("arms:", "§arms:"),
        "#/rules/0/variants/arms",
        "error",
        "sum to 90, they must sum to 100",
    ),
    (
        experiment("{ by: actor, seed: s, holdout: 10, arms: { §a: {}, §b: { weight: much }, c: { weight: 20 } } }"),
        "#/rules/0/variants/arms/a #/rules/0/variants/arms/b",
        "error",
        "weight",
    ),
    (
        experiment("{ by: actor, seed: s, coverage: §0, arms: { a: { weight: 100 } } }"),
        "#/rules/0/variants/coverage",
        "error",
        "coverage is 0",
    ),
    (
        experiment("{ by: actor, seed: s, holdout: §half, arms: { a: { weight: 50 } } }"),
        "#/rules/0/variants/holdout",
        "error",
        "holdout is 'half'",
    ),
    (
        experiment("{ by: actor, seed: s, §namespace: { name: n, from: 50, to: 50 }, arms: { a: { weight: 100 } } }"),
        "#/rules/0/variants/namespace",
        "error",
        "which holds nobody",
    ),
    (
        one(actions=amount("context.a * §variant.rate")),
        "#/rules/0/actions/0/amount",
        "error",
        "this rule has no variants",
    ),
    (experiment(ARMS, "context.a * variant.§rate"), "#/rules/0/actions/0/amount", "error", "the arm b of this rule's"),
    (experiment(ARMS, "context.a * variant.§rte"), "#/rules/0/actions/0/amount", "error", "did you mean rate?"),
    (
        experiment(ARMS, "context.a * variant.§weight"),
        "#/rules/0/actions/0/amount",
        "error",
        "no arm has a value weight",
    ),
    (
        one('condition: §variant.name == "a"', f"variants: {ARMS}"),
        "#/rules/0/condition",
        "error",
        "cannot read variant",
    ),
    (
        rules(
            rule(f"variants: {ARMS}"),
            rule("variants: " + ARMS.replace("seed: s", "seed: §s").replace("by: actor", "by: subject"), key="s"),
        ),
        "#/rules/1/variants/seed",
        "error",
        "the rule r divides the users of the seed s in another way",
    ),
]

REVERSALS: list[Case] = [
    (
        reversed_("{ event_type: x, same: context.a, fraction: 'size(§original) > 1 ? 1 : context.b' }"),
        "#/rules/0/reversal/fraction",
        "error",
        "the original event is read by its fields",
    ),
    (
        reversed_("{ event_type: x, same: context.a, fraction: 1 §/ (1 - 1) }"),
        "#/rules/0/reversal/fraction",
        "error",
        "division by zero",
    ),
    (
        reversed_("{ event_type: x, same: context.a, fraction: §" + " * ".join(["999999999999999"] * 5) + " }"),
        "#/rules/0/reversal/fraction",
        "error",
        "digits",
    ),
    (
        reversed_("{ event_type: §purchase.completed, same: context.a }"),
        "#/rules/0/reversal/event_type",
        "warning",
        "own type",
    ),
    (reversed_("{ event_type: x, same: §contxt.a }"), "#/rules/0/reversal/same", "error", "did you mean context?"),
    (reversed_("{ event_type: x, same: §order_id }"), "#/rules/0/reversal/same", "error", "written context.order_id"),
    (
        reversed_("{ event_type: x, same: §original.context.a }"),
        "#/rules/0/reversal/same",
        "error",
        "without `original.`",
    ),
    (reversed_("{ event_type: x, same: §context }"), "#/rules/0/reversal/same", "error", "is an object"),
    (reversed_("{ event_type: x, same: §source }"), "#/rules/0/reversal/same", "error", "holds no value that ties"),
    (
        reversed_("{ event_type: x, same: { this: §context.a + context.b, original: §counters.a } }"),
        "#/rules/0/reversal/same/this #/rules/0/reversal/same/original",
        "error",
        "",
    ),
    (
        reversed_("{ event_type: x, same: context.a, fraction: §1.5 }"),
        "#/rules/0/reversal/fraction",
        "error",
        "outside 0",
    ),
    (
        reversed_("{ event_type: x, same: context.a, fraction: §-1 }"),
        "#/rules/0/reversal/fraction",
        "error",
        "outside 0",
    ),
    (
        reversed_("{ event_type: x, same: context.a, fraction: §0 }"),
        "#/rules/0/reversal/fraction",
        "warning",
        "ever taken",
    ),
    (
        reversed_("{ event_type: x, same: context.a, fraction: context.b / original.§contxt.b }"),
        "#/rules/0/reversal/fraction",
        "error",
        "did you mean context?",
    ),
    (
        reversed_("{ event_type: x, same: context.a, fraction: context.b / §counters.b }"),
        "#/rules/0/reversal/fraction",
        "error",
        "a fraction cannot read counters",
    ),
    (
        reversed_("{ event_type: x, same: context.a, fraction: context.b * §variant.b }"),
        "#/rules/0/reversal/fraction",
        "error",
        "a fraction cannot read variant",
    ),
    (
        one(actions=amount("context.a - §original.context.b")),
        "#/rules/0/actions/0/amount",
        "error",
        "only in a reversal",
    ),
    (
        one("condition: context.a > §original.context.b"),
        "#/rules/0/condition",
        "error",
        "only in a reversal's fraction",
    ),
]

SHARES: list[Case] = [
    (
        one(
            actions=each("§each: { in: context.i, as: i, recipient: i.u, share: i.s }")
            .replace("§", "")
            .replace("share: ", "share: §")
        ),
        "#/rules/0/actions/0/each/share",
        "error",
        "a share needs a whole",
    ),
    (
        one(actions=each("amount: 9, each: { in: context.i, as: i, recipient: i.u, amount: 1, share: §i.s }")),
        "#/rules/0/actions/0/each/share",
        "error",
        "exclude each other",
    ),
    (
        one(actions=each("amount: 9, each: { in: context.i, as: i, recipient: i.u, share: §j.s }")),
        "#/rules/0/actions/0/each/share",
        "error",
        "unknown name j",
    ),
    (
        one(actions=each("amount: §i.a, each: { in: context.i, as: i, recipient: i.u, share: i.s }")),
        "#/rules/0/actions/0/amount",
        "error",
        "unknown name i",
    ),
]

ALL = [*VARIANTS, *REVERSALS, *SHARES]


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case[1]} {case[3]}")
def test_terms_that_cannot_be_kept_are_told_where_they_stand(case: Case):
    check_found(*case)
