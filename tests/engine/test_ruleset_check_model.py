"""What limits, budgets, counters, groups, reversals, variants, schemas and tests may not say, each with its place.

`§` marks where a finding must stand: it is taken out of the text before it is read.
"""

import pytest

from connect.engine.ruleset import RuleProblem, review

HEAD = "units: { points: { scale: 0 }, nft: { scale: 0 }, money: { scale: 2 } }\n"
ONCE = "limits: [ { per: actor, every: day, uses: 1 } ]"
POINTS = "{ target: points, command: credit, recipient: actor, amount: 5, unit: points }"
NFT = "{ target: nft, command: mint, recipient: actor, amount: 1, unit: nft }"


def rule(*lines: str, key: str = "r", limits: str = ONCE, actions: str = f"[ {POINTS} ]", place: str = "") -> str:
    """One entry of `rules`; `place` goes before its key."""
    fields = [f"{place}key: {key}", "event_type: purchase.completed", *lines, limits, f"actions: {actions}"]
    return "  - " + "\n    ".join(field for field in fields if field) + "\n"


def rules(*entries: str) -> str:
    return HEAD + "rules:\n" + "".join(entries)


def one(*lines: str, **fields: str) -> str:
    return rules(rule(*lines, **fields))


def limited(limits: str, actions: str = f"[ {POINTS} ]") -> str:
    return one(limits=f"limits: {limits}", actions=actions)


def counter(text: str, condition: str = "condition: counters.c >= 1") -> str:
    return f"counters:\n  c: {text}\n" + one(condition)


def counted(*lines: str, kind: str = "count", actions: str = f"[ {POINTS} ]") -> str:
    value = ", value: context.a" if kind in ("sum", "distinct") else ", every: day" if kind == "streak" else ""
    return f"counters: {{ c: {{ event_type: e, of: actor, kind: {kind}{value} }} }}\n" + one(*lines, actions=actions)


def budgeted(budgets: str, use: str, **fields: str) -> str:
    return f"budgets: {budgets}\n" + one(f"budget: {use}", **fields)


def grouped(groups: str, *entries: str) -> str:
    return f"groups: {groups}\n" + rules(*entries)


def reversed_(text: str) -> str:
    return one(f"reversal: {text}")


def experiment(variants: str, amount: str = "5") -> str:
    action = f"{{ target: points, command: credit, recipient: actor, amount: {amount}, unit: points, round: down }}"
    return one(f"variants: {variants}", actions=f"[ {action} ]")


def story(test: str, *lines: str) -> str:
    return one(*lines) + f"tests:\n  - {test}\n"


ARMS = "{ by: actor, seed: s, arms: { a: { weight: 50, rate: 0.5 }, b: { weight: 50 } } }"
GIVEN = "given: [ { external_id: e1, event_type: purchase.completed } ]"
SCHEMA = """\
schemas:
  purchase.completed:
    type: object
    properties:
      order_id: { type: string }
      amount: { type: number }
      tier: { type: string }
      items: { type: array, items: { type: object, properties: { seller: { type: string }, price: { type: number } } } }
"""


def amount(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"[ {{ target: t, command: c, recipient: actor, unit: points, round: down, amount: '{quoted}' }} ]"


def each(text: str) -> str:
    return f"[ {{ target: t, command: c, unit: points, round: down, {text} }} ]"


Case = tuple[str, str, str, str]

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

GROUPS: list[Case] = [
    (
        grouped(
            "{ cash: { pick: first } }",
            rule("group: cash"),
            rule("group: cash", key="s"),
            rule("group: §cahs", key="t"),
        ),
        "#/rules/2/group",
        "error",
        "did you mean cash?",
    ),
    (
        grouped("{ §g: { pick: highest } }", rule("group: g"), rule("group: g", key="s")),
        "#/groups/g",
        "error",
        "`pick: highest` compares amounts",
    ),
    (
        grouped(
            "{ g: { pick: lowest, unit: nft } }",
            rule("group: g", actions=f"[ {POINTS.replace('unit: ', 'unit: §')} ]"),
            rule("group: g", key="s", actions=f"[ {NFT} ]"),
        ),
        "#/rules/0/actions/0/unit",
        "error",
        "the group g compares nft, and this action is in points",
    ),
    (
        grouped("{ §g: { pick: first } }", rule("group: g")),
        "#/groups/g",
        "warning",
        "only the rule r is in the group g",
    ),
    (grouped("{ §g: { pick: first } }", rule()), "#/groups/g", "warning", "no rule is in the group g"),
    (
        grouped("{ §g: { pick: first } }", rule("group: g"), rule("group: g", key="s").replace("purchase.", "order.")),
        "#/groups/g",
        "warning",
        "never meet",
    ),
    (
        grouped(
            "{ g: { pick: first } }",
            rule("group: g", "priority: 1", limits=""),
            rule("group: §g", key="s"),
        ).replace("- key: r", "- §key: r"),
        "#/rules/0 #/rules/1/group",
        "warning",
        "never chosen: in the group g the rule r comes first",
    ),
    (rules(rule("formerly: §r")), "#/rules/0/formerly", "error", "r is the rule's key now"),
    (rules(rule("formerly: §s"), rule(key="s")), "#/rules/0/formerly", "error", "the key of another rule"),
    (
        rules(rule("formerly: o"), rule("formerly: §o", key="s")),
        "#/rules/1/formerly",
        "error",
        "the rule r was formerly o already",
    ),
    (
        rules(rule("formerly: §s"), rule("formerly: §r", key="s")),
        "#/rules/0/formerly #/rules/1/formerly",
        "error",
        "each names the other",
    ),
]

REACH: list[Case] = [
    (
        rules(rule("stop: true", "condition: (true)", limits="", place="§"), rule(key="s", place="§")),
        "#/rules/0 #/rules/1",
        "warning",
        "never asked: the rule r comes first",
    ),
    (one("condition: §'false'"), "#/rules/0/condition", "warning", "always false"),
    (
        one("condition: §false"),
        "#/rules/0/condition",
        "error",
        'must be a text or a list, not false; quote it: "false"',
    ),
    (one("condition: [ context.a > 1, §1 > 2 ]"), "#/rules/0/condition/1", "warning", "`enabled: false`"),
    (one("condition: §1 % 0 == 1"), "#/rules/0/condition", "error", "division by zero"),
    (
        one("starts_at: 2026-01-02T00:00:00Z", "ends_at: §2026-01-02T00:00:00Z"),
        "#/rules/0/ends_at",
        "error",
        "ends before it starts",
    ),
]

VARIANTS: list[Case] = [
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

SCHEMAS: list[Case] = [
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
        "the rule r has no arm c it has a, b, holdout",
    ),
]

ALL = [*LIMITS, *BUDGETS, *COUNTERS, *GROUPS, *REACH, *VARIANTS, *REVERSALS, *SHARES, *SCHEMAS, *STORIES]


def places_of(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its marks, and line and column of each."""
    places: list[tuple[int, int]] = []
    while (at := marked.find("§")) >= 0:
        places.append((marked.count("\n", 0, at) + 1, at - marked.rfind("\n", 0, at)))
        marked = marked[:at] + marked[at + 1 :]
    return marked, places


def said(problem: RuleProblem) -> str:
    return f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("marked", "pointers", "severities", "says"), ALL, ids=[f"{case[1]} {case[3]}" for case in ALL]
)
def test_each_finding_stands_where_it_belongs_and_alone(marked: str, pointers: str, severities: str, says: str):
    text, places = places_of(marked)
    found = review(text)
    assert [problem.pointer for problem in found] == pointers.split(), found
    assert [(problem.line, problem.column) for problem in found] == places, found
    wanted = severities.split()
    assert [problem.severity for problem in found] == (wanted * len(found))[: max(len(found), len(wanted))]
    assert says in said(found[-1])
    assert all(problem.hint for problem in found if not problem.pointer.startswith("#/rules/0/condition"))
