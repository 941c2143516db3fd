"""Limits, budgets and safety may not say these things, each with its place."""

import pytest

from tests.authoring.faults import NFT, POINTS, Case, amount, budgeted, check_found, limited, one

LIMITS: list[Case] = [
    (limited("[ §{ per: actor, uses: 1 } ]"), "#/rules/0/limits/0", "error", "either `every` or `within`"),
    (limited("[ §{ per: actor, every: day, within: 6h, uses: 1 } ]"), "#/rules/0/limits/0", "error", "leave one of"),
    (limited("[ §{ per: actor, every: day } ]"), "#/rules/0/limits/0", "error", "`uses` or `amount`"),
    (
        limited("[ { per: actor, every: day, amount: §1_000 } ]"),
        "#/rules/0/limits/0/amount",
        "error",
        "'1_000' is no amount",
    ),
    (limited("[ { per: actor, every: day, amount: §-5 } ]"), "#/rules/0/limits/0/amount", "error", "plain digits"),
    (limited("[ { per: actor, every: day, amount: §0 } ]"), "#/rules/0/limits/0/amount", "error", "the cap is 0"),
    (
        limited("[ { per: actor, every: day, amount: §10.5 } ]"),
        "#/rules/0/limits/0/amount",
        "error",
        "no decimal places",
    ),
    (
        limited("[ { per: actor, every: day, amount: §10 } ]", f"[ {POINTS}, {NFT} ]"),
        "#/rules/0/limits/0/amount",
        "error",
        "the rule gives points and nft",
    ),
    (
        limited("[ { per: actor, within: 24h, uses: 2 }, §{ per: actor, within: 1d, uses: 3 } ]"),
        "#/rules/0/limits/1",
        "error",
        "limit 1 caps the same",
    ),
    (
        limited("[ §{ per: actor, every: day, uses: 9 }, { per: actor, every: month, uses: 5 } ]"),
        "#/rules/0/limits/0",
        "warning",
        "the day limit of 9 uses per actor can never bind: the month limit of 5 uses per actor is reached first",
    ),
    (
        limited("[ §{ per: actor, every: month, amount: 80 }, { per: rule, every: ever, amount: 80 } ]"),
        "#/rules/0/limits/0",
        "warning",
        "the ever limit of 80 is reached first",
    ),
    (
        limited("[ §{ per: actor, within: 6h, uses: 5 }, { per: actor, within: 1d, uses: 5 } ]"),
        "#/rules/0/limits/0",
        "warning",
        "the 6h limit",
    ),
    (
        limited("[ §{ per: actor, every: day, uses: 5 }, { per: actor, within: 25h, uses: 5 } ]"),
        "#/rules/0/limits/0",
        "warning",
        "the 25h limit",
    ),
    (
        limited("[ { per: actor, every: day, uses: 1 }, §{ per: actor, every: week, uses: 7 } ]"),
        "#/rules/0/limits/1",
        "warning",
        "lets through 7 a week at the most",
    ),
    (
        limited("[ { per: actor, every: day, amount: §4 } ]"),
        "#/rules/0/limits/0/amount",
        "error",
        "this rule can never give: it gives 5 at once",
    ),
    (
        limited(
            "[ { per: parties.a, every: day, amount: §4 } ]",
            f"[ {POINTS}, {POINTS.replace('actor', 'parties.a').replace('unit', 'key: k, unit')} ]",
        ),
        "#/rules/0/limits/0/amount",
        "error",
        "its action 2 can never give",
    ),
    (one(limits="", place="§"), "#/rules/0", "warning", "unbounded: nothing limits how often it gives"),
    (
        one(limits="", place="§", actions=amount("context.a * 2")),
        "#/rules/0",
        "warning",
        "how much each time is up to context.a",
    ),
]

BUDGETS: list[Case] = [
    (
        budgeted(
            "{ b: { unit: §coins, cap: 5 } }",
            "{ from: b }",
            actions=f"[ {POINTS.replace('unit: points', 'unit: §coins')} ]",
        ),
        "#/budgets/b/unit #/rules/0/actions/0/unit",
        "warning",
        "the unit coins is not declared",
    ),
    (budgeted("{ b: { unit: points, cap: §1e6 } }", "{ from: b }"), "#/budgets/b/cap", "error", "'1e6' is no amount"),
    (budgeted("{ b: { unit: points, cap: §5.5 } }", "{ from: b }"), "#/budgets/b/cap", "error", "round it"),
    (
        budgeted("{ b: { unit: points, cap: §0 } }", "{ from: b, when_short: clip }"),
        "#/budgets/b/cap",
        "error",
        "cap is 0",
    ),
    (
        budgeted("{ autumn: { unit: points, cap: 50 } }", "{ from: §autum }").replace("{ autumn", "{ §autumn"),
        "#/budgets/autumn #/rules/0/budget/from",
        "warning error",
        "autumn",
    ),
    (
        budgeted("{ b: { unit: nft, cap: 50 } }", "{ from: §b }"),
        "#/rules/0/budget/from",
        "error",
        "the budget b is in nft, and the rule gives points",
    ),
    (
        budgeted("{ b: { unit: points, cap: 4 } }", "{ from: §b }"),
        "#/rules/0/budget/from",
        "error",
        "the whole budget b holds 4",
    ),
    ("budgets: { §b: { unit: points, cap: 4 } }\n" + one(), "#/budgets/b", "warning", "no rule draws on the budget b"),
    ("safety: { review_above: { points: §lots } }\n" + one(), "#/safety/review_above/points", "error", "'lots' is no"),
    ("safety: { per_day: { points: §0.5 } }\n" + one(), "#/safety/per_day/points", "error", "no decimal places"),
    ("safety: { per_day: { coins: §5 } }\n" + one(), "#/safety/per_day/coins", "warning", "coins is not declared"),
]

ALL = [*LIMITS, *BUDGETS]


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case[1]} {case[3]}")
def test_a_cap_that_says_nothing_or_too_much_is_told_where_it_stands(case: Case):
    check_found(*case)
