"""Counters may not say these things, each with its place."""

import pytest

from tests.authoring.faults import Case, amount, check_found, counted, counter, one

COUNTERS: list[Case] = [
    (
        counter("§{ event_type: e, of: actor, kind: sum }").replace("c: §", "§c: "),
        "#/counters/c",
        "error",
        "needs `value`",
    ),
    (
        counter("{ event_type: e, of: actor, kind: count, value: §context.a }"),
        "#/counters/c/value",
        "error",
        "has no `value`",
    ),
    (
        counter("{ event_type: e, of: actor, kind: sum, value: 'context.a + §contxt.b' }"),
        "#/counters/c/value",
        "error",
        "unknown name contxt",
    ),
    (
        counter("{ event_type: e, of: actor, kind: distinct, value: §contxt.b }"),
        "#/counters/c/value",
        "error",
        "did you mean context?",
    ),
    (
        counter("{ event_type: e, of: actor, kind: streak }").replace("  c:", "  §c:"),
        "#/counters/c",
        "error",
        "a streak needs its step",
    ),
    (
        counter("{ event_type: e, of: actor, kind: streak, every: §ever }"),
        "#/counters/c/every",
        "error",
        "`every: week`",
    ),
    (
        counter("{ event_type: e, of: actor, kind: streak, every: day, within: §6d }"),
        "#/counters/c/within",
        "error",
        "a streak has no window",
    ),
    (
        counter("{ event_type: e, of: actor, kind: count, every: day, within: §6d }"),
        "#/counters/c/within",
        "error",
        "either `every` or `within`",
    ),
    (counter("{ event_type: e, of: actor, kind: count, grace: §1 }"), "#/counters/c/grace", "error", "only a streak"),
    (
        counter("{ event_type: e, of: actor, kind: count, undone_by: §e2 }"),
        "#/counters/c/undone_by",
        "error",
        "`undone_by` needs `same`",
    ),
    (
        counter("{ event_type: e, of: actor, kind: count, same: §context.a }"),
        "#/counters/c/same",
        "error",
        "nothing undoes them",
    ),
    (
        counter("{ event_type: e, of: actor, kind: count, fraction: §context.a }"),
        "#/counters/c/fraction",
        "error",
        "add `undone_by`",
    ),
    (
        counter("{ event_type: e, of: actor, kind: count, undone_by: §e, same: context.a }"),
        "#/counters/c/undone_by",
        "warning",
        "counts and takes back at once",
    ),
    (
        counter("{ event_type: e, of: actor, kind: count, undone_by: e2, same: §size(context.a) }"),
        "#/counters/c/same",
        "error",
        "not the path of a field",
    ),
    (
        counter("{ event_type: e, of: actor, kind: count, undone_by: e2, same: context.a, fraction: §2 }"),
        "#/counters/c/fraction",
        "error",
        "outside 0 to 1",
    ),
    (
        counter("{ event_type: e, of: actor, kind: count, zone: §Berlin }"),
        "#/counters/c/zone",
        "error",
        "called Berlin",
    ),
    (
        counter("{ event_type: e, of: actor, kind: count, condition: context.a > §counters.d }"),
        "#/counters/c/condition",
        "error",
        "a counter cannot read counters",
    ),
    (
        counter("{ event_type: e, of: actor, kind: sum, value: 2 * §variant.x }"),
        "#/counters/c/value",
        "error",
        "a counter cannot read variant",
    ),
    (
        counter("{ event_type: e, of: actor, kind: sum, value: 2 * §original.context.x }"),
        "#/counters/c/value",
        "error",
        "original is known only in the fraction",
    ),
    (
        "counters:\n  §c: { event_type: e, of: actor, kind: count }\n" + one(),
        "#/counters/c",
        "warning",
        "no rule reads the counter c",
    ),
    (
        "counters: { purchases: { event_type: e, of: actor, kind: count } }\n"
        + one("condition: counters.purchases > 1 && counters.§purchase > 2"),
        "#/rules/0/condition",
        "error",
        "did you mean purchases?",
    ),
    (counted("condition: counters.c > 1 && size(§counters) > 1"), "#/rules/0/condition", "error", "by their names"),
    *[
        (
            counted("condition: counters.c §== 10", kind=kind),
            "#/rules/0/condition",
            "warning",
            f"counters.c is a {kind}, which can pass 10",
        )
        for kind in ("sum", "distinct", "streak")
    ],
    (
        counted(kind="sum", actions=amount("7 §== counters.c ? 5 : 0")),
        "#/rules/0/actions/0/amount",
        "warning",
        "write counters.c >= 7",
    ),
]

ALL = COUNTERS


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case[1]} {case[3]}")
def test_a_counter_that_cannot_count_is_told_where_it_stands(case: Case):
    check_found(*case)


@pytest.mark.parametrize(
    "fields",
    [
        "kind: sum, value: 'min(context.a * 0.5, decimal(context.b))'",
        "kind: distinct, value: 'context.a + \"/\" + context.b', every: month",
        "kind: streak, every: week, grace: 1, zone: context.timezone",
        "kind: count, within: 30d, zone: Europe/Berlin, condition: [ context.a > 1, 'true' ]",
        "kind: count, undone_by: f, same: { this: context.a, original: external_id }, fraction: original.context.b",
    ],
)
def test_a_counter_that_counts_has_nothing_said_of_it(fields: str):
    check_found(counter(f"{{ event_type: e, of: actor, {fields} }}"), "", "", "")
